/** One turn: a question and its answer, as it is made or as it is stored. */

import type { Client } from "./client";
import type { Conversation, Turn } from "./conversation";
import { Copy } from "./copy";
import { Films } from "./films";
import { span } from "./format";
import { Icons } from "./icons";
import { OpinionOf } from "./opinion";
import { text } from "./preferences";
import { Absences, Ribbon } from "./ribbon";
import { type Run, isOver } from "./runs";
import { useStore } from "./store";

interface Shown {
  client: Client;
  conversation: Conversation;
  turn: Turn;
}

export function TurnShown({ client, conversation, turn }: Shown) {
  const words = text();
  const runs = useStore(client.runs);
  const run = turn.run === null ? undefined : runs.get(turn.run);
  const isBusy = run !== undefined && !isOver(run);
  const content = run?.text ?? turn.stored?.content ?? "";
  return (
    <article class="turn">
      <p class="question">
        <span class="unseen">{words.you}: </span>
        {turn.question}
      </p>
      <div class="answer" aria-busy={isBusy}>
        <h3>
          {words.assistant} <span class="label">{words.aigc}</span>
        </h3>
        {content !== "" && (
          <p class={isBusy ? "text growing" : "text"} data-answer>
            {content}
          </p>
        )}
        {isBusy && content === "" && <p class="dim">{run.requestId === null ? words.asking : words.waitingFirst}</p>}
        {run?.phase === "failed" && <Failure run={run} />}
        {run?.films != null && <Films client={client} conversation={conversation} films={run.films} />}
        {run !== undefined && <Course run={run} />}
        <Actions client={client} conversation={conversation} turn={turn} run={run} />
      </div>
    </article>
  );
}

function Failure({ run }: { run: Run }) {
  return (
    <p class="bad" role="alert">
      {text().failed}: {run.error?.message} {run.error?.reason !== undefined && <code>{run.error.reason}</code>}
    </p>
  );
}

/** How the answer came: its frames, its times, its cuts. */
function Course({ run }: { run: Run }) {
  const words = text();
  const facts = [
    run.lastSeq > 0 && words.frameCount(run.lastSeq),
    run.firstAt !== null && words.firstAfter(span(run.firstAt - run.askedAt)),
    run.endedAt !== null && words.tookAll(span(run.endedAt - run.askedAt)),
    run.finish !== null && (words.finishes[run.finish] ?? run.finish),
    run.restarts > 0 && words.restarted(run.restarts),
    run.usage !== null && `${run.usage.prompt_tokens} + ${run.usage.completion_tokens} tokens`,
  ].filter((fact) => typeof fact === "string");
  return (
    <div class="course">
      <Ribbon run={run} />
      <Absences absences={run.absences} />
      <p class="facts">
        {run.requestId !== null && (
          <span class="request">
            <span class="dim">request_id</span> <code>{run.requestId}</code>
            <Copy what={() => run.requestId ?? ""} />
          </span>
        )}
        <span class="dim">{facts.join(" · ")}</span>
        {run.agrees !== null && (
          <span class={run.agrees ? "good" : "bad"} data-agrees={run.agrees}>
            {run.agrees ? words.agrees : words.disagrees}
            {" · "}
            {run.doubled === 0 ? words.notDoubled : words.doubled(run.doubled)}
          </span>
        )}
        {run.stages.length > 0 && (
          <span class="dim">
            {words.stages}: {run.stages.join(" → ")}
          </span>
        )}
      </p>
    </div>
  );
}

function Actions({ client, conversation, turn, run }: Shown & { run: Run | undefined }) {
  const words = text();
  const siblings = useStore(conversation.siblings);
  if (run !== undefined && !isOver(run))
    return (
      <div class="actions">
        <button type="button" class="quiet" onClick={() => client.cancel(run)}>
          <Icons.stop />
          <span>{words.stop}</span>
        </button>
      </div>
    );
  const messageId = run === undefined ? turn.stored?.id : run.messageId;
  if (messageId == null) return null;
  return (
    <>
      <div class="actions">
        <button type="button" class="quiet" onClick={() => conversation.again(turn, messageId)}>
          <Icons.again />
          <span>{words.again}</span>
        </button>
        <Copy wide what={() => run?.text ?? turn.stored?.content ?? ""} />
        <Branches conversation={conversation} messageId={messageId} beside={siblings.get(messageId) ?? []} />
      </div>
      <OpinionOf key={messageId} conversation={conversation} messageId={messageId} />
    </>
  );
}

function Branches({ conversation, messageId, beside }: { conversation: Conversation; messageId: string; beside: readonly string[] }) {
  const words = text();
  const at = beside.indexOf(messageId);
  if (beside.length < 2 || at < 0) return null;
  const before = beside[at - 1];
  const after = beside[at + 1];
  return (
    <div class="branches" role="group" aria-label={words.branch(at + 1, beside.length)}>
      <button type="button" class="quiet only-icon" aria-label={words.previous} disabled={before === undefined} onClick={() => void conversation.choose(before ?? messageId)}>
        <Icons.left />
      </button>
      <span class="number" aria-hidden="true">
        {at + 1}/{beside.length}
      </span>
      <button type="button" class="quiet only-icon" aria-label={words.next} disabled={after === undefined} onClick={() => void conversation.choose(after ?? messageId)}>
        <Icons.right />
      </button>
    </div>
  );
}
