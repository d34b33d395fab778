/** One field of a message: what it is, what may stand in it, and where it is typed. */

import { bounds } from "./format";
import { text } from "./preferences";
import type { Field, Problem } from "./schema";

interface Asked {
  field: Field;
  value: string;
  problem: Problem | undefined;
  onTyped: (value: string) => void;
}

export function FieldAsked({ field, value, problem, onTyped }: Asked) {
  const words = text();
  const id = `field-${field.name}`;
  return (
    <div class={problem === undefined ? "field" : "field wrong"}>
      <label for={id}>
        <code>{field.name}</code> {field.required ? <em>{words.required}</em> : null}
      </label>
      <Control field={field} value={value} problem={problem} onTyped={onTyped} />
      <p class="hint" id={`${id}-hint`}>
        {said(field)} {problem !== undefined && <strong class="bad">{words.problems[problem]}</strong>}
      </p>
    </div>
  );
}

function Control({ field, value, problem, onTyped }: Asked) {
  const id = `field-${field.name}`;
  const shared = { id, name: field.name, "aria-describedby": `${id}-hint`, "aria-invalid": problem !== undefined, "aria-required": field.required };
  const heard = (event: { currentTarget: { value: string } }): void => onTyped(event.currentTarget.value);
  if (field.kind === "boolean" || field.kind === "choice")
    return (
      <select {...shared} value={value} onChange={heard}>
        <option value="">{text().notSent}</option>
        {(field.kind === "boolean" ? ["true", "false"] : field.choices).map((choice) => (
          <option key={choice} value={choice}>
            {choice}
          </option>
        ))}
      </select>
    );
  const isLong = field.kind === "json" || (field.kind === "text" && (field.longest ?? 0) > 500);
  if (isLong) return <textarea {...shared} class="mono" rows={2} spellcheck={false} value={value} onInput={heard} />;
  return <input {...shared} class="mono" inputMode={field.kind === "integer" ? "numeric" : "text"} autocomplete="off" spellcheck={false} value={value} onInput={heard} />;
}

function said(field: Field): string {
  const words = text();
  const ofNumber = bounds(field.least, field.most);
  const ofLength = bounds(field.shortest, field.longest);
  const parts = [
    field.format ?? words.kinds[field.kind],
    field.kind === "choice" && field.choices.join(" | "),
    field.kind === "text" && ofLength !== "" && words.length(ofLength),
    field.kind === "integers" && ofLength !== "" && words.items(ofLength),
    ofNumber !== "" && (field.kind === "integers" ? words.each(ofNumber) : ofNumber),
    field.nullable && words.nullable,
    field.preset !== undefined && field.preset !== null && words.presetIs(JSON.stringify(field.preset)),
    field.about,
  ];
  return parts.filter((part) => typeof part === "string" && part !== "").join(" · ");
}
