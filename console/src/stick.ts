/** Keeps a box at its end while it grows, for as long as it is wanted there. */

import type { RefObject } from "preact";
import { useEffect } from "preact/hooks";

/** Goes to the end when one of `grown` changes, and when the box is shown again: hidden, it has no place to be at. */
export function useStick(box: RefObject<HTMLElement | null>, wanted: () => boolean, grown: unknown[]): void {
  const toEnd = (): void => {
    const element = box.current;
    if (element !== null && wanted()) element.scrollTop = element.scrollHeight;
  };
  useEffect(toEnd, grown);
  useEffect(() => {
    if (box.current === null) return;
    const observer = new ResizeObserver(toEnd);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [box, wanted()]);
}
