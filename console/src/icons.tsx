/** Icons, drawn here: lines of one weight on a grid of 16. They say nothing to a screen reader; their buttons do. */

import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round">
      {children}
    </svg>
  );
}

export const Icons = {
  up: () => (
    <Icon>
      <path d="M8 13V3M4 7l4-4 4 4" />
    </Icon>
  ),
  down: () => (
    <Icon>
      <path d="M8 3v10M4 9l4 4 4-4" />
    </Icon>
  ),
  dot: () => (
    <Icon>
      <circle cx="8" cy="8" r="2.5" />
    </Icon>
  ),
  sun: () => (
    <Icon>
      <circle cx="8" cy="8" r="2.75" />
      <path d="M8 1.5v1.25M8 13.25v1.25M1.5 8h1.25M13.25 8h1.25M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9" />
    </Icon>
  ),
  moon: () => (
    <Icon>
      <path d="M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1Z" />
    </Icon>
  ),
  half: () => (
    <Icon>
      <circle cx="8" cy="8" r="5.75" />
      <path d="M8 2.25a5.75 5.75 0 0 1 0 11.5Z" fill="currentColor" />
    </Icon>
  ),
  copy: () => (
    <Icon>
      <rect x="5.5" y="5.5" width="8" height="8" rx="1.5" />
      <path d="M10.5 5.5v-2a1 1 0 0 0-1-1h-6a1 1 0 0 0-1 1v6a1 1 0 0 0 1 1h2" />
    </Icon>
  ),
  check: () => (
    <Icon>
      <path d="M3 8.5 6.5 12 13 4.5" />
    </Icon>
  ),
  again: () => (
    <Icon>
      <path d="M13.2 6.5A5.5 5.5 0 1 0 13.5 9M13.5 2.75V6.5H9.75" />
    </Icon>
  ),
  stop: () => (
    <Icon>
      <rect x="4" y="4" width="8" height="8" rx="1" />
    </Icon>
  ),
  cut: () => (
    <Icon>
      <path d="M1.5 8H5M11 8h3.5M6.5 4.5l-1 7M10.5 4.5l-1 7" />
    </Icon>
  ),
  link: () => (
    <Icon>
      <path d="M1.5 8h13" />
      <circle cx="8" cy="8" r="2.75" fill="var(--surface)" />
    </Icon>
  ),
  left: () => (
    <Icon>
      <path d="M10 3 5 8l5 5" />
    </Icon>
  ),
  right: () => (
    <Icon>
      <path d="m6 3 5 5-5 5" />
    </Icon>
  ),
};
