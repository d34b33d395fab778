/** What is thought of an answer: one of five, and a comment. */

import { useState } from "preact/hooks";
import type { Conversation } from "./conversation";
import { text } from "./preferences";
import { useStore } from "./store";

export function OpinionOf({ conversation, messageId }: { conversation: Conversation; messageId: string }) {
  const words = text();
  const opinion = useStore(conversation.opinions).get(messageId);
  const [comment, setComment] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    if (opinion !== undefined) void conversation.rate(messageId, opinion.rating, comment);
  };
  return (
    <form class="opinion" onSubmit={submit}>
      <fieldset>
        <legend>{words.rate}</legend>
        {words.ratings.map((name, at) => (
          <label key={name} title={name}>
            <input type="radio" name={`rating-${messageId}`} checked={opinion?.rating === at + 1} onChange={() => void conversation.rate(messageId, at + 1, comment)} />
            <span aria-hidden="true" class="number">
              {at + 1}
            </span>
            <span class="unseen">{name}</span>
          </label>
        ))}
        {opinion !== undefined && <span class={opinion.state === "failed" ? "bad" : "dim"}>{words.ratings[opinion.rating - 1]}</span>}
      </fieldset>
      {opinion !== undefined && (
        <div class="row">
          <input aria-label={words.comment} placeholder={words.comment} maxLength={1000} value={comment} onInput={(event) => setComment(event.currentTarget.value)} />
          <button type="submit" disabled={comment === "" || opinion.state === "sending"}>
            {words.sendComment}
          </button>
        </div>
      )}
      <p class="dim" role="status">
        {opinion !== undefined && words.opinion[opinion.state]}
      </p>
    </form>
  );
}
