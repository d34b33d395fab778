export async function shoot() {}
