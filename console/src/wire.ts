/** What goes over the socket, as far as this page reads it. What the server may be asked is in its AsyncAPI document. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Message = { type: string; id?: string } & { [key: string]: Json };

/** Any frame of the server. Keys that do not belong to its type are absent. */
export interface Frame {
  type: string;
  id?: string;
  request_id?: string;
  seq?: number;
  code?: number;
  message?: string;
  data?: Json;
  content?: Json;
  reason?: string;
  retryable?: boolean;
  retry_after_ms?: number | null;
  field?: string;
  server?: ServerFacts;
  answer?: string;
  message_id?: string | null;
  finish_reason?: string;
  usage?: Usage | null;
}

export interface ServerFacts {
  connection_id: string;
  ping_interval_s: number;
  resume_window_s: number;
  max_message_bytes: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

export interface LoggedIn {
  openid?: string;
  session_id: string;
  token: string;
  expires_in: number;
}

export interface StoredMessage {
  id: string;
  conversation_id: string;
  role: "user" | "assistant";
  content: string;
  created_at: string;
  request_id: string | null;
  finish_reason: string | null;
  siblings?: string[];
}

export interface Recommendations {
  tmdb_ids: number[];
  title: string;
  mode: string;
}

export interface MovieCard {
  tmdb_id: number;
  title: string;
  year: number | null;
  poster_url: string | null;
  vote_average: number;
  vote_count: number;
  genres: string[];
  directors: string[];
}

/** The frame that a text is, or null: what is no JSON object with a type is none. */
export function frameOf(text: string): Frame | null {
  try {
    const read: unknown = JSON.parse(text);
    return typeof read === "object" && read !== null && typeof (read as Frame).type === "string" ? (read as Frame) : null;
  } catch {
    return null;
  }
}

/** A frame's `data` or `content`, which its type says the shape of. */
export function as<T>(value: Json | undefined): T {
  return value as unknown as T;
}

const encoder = new TextEncoder();

/** Bytes of UTF-8, which is what the server counts. */
export function sizeOf(text: string): number {
  return encoder.encode(text).length;
}
