/**
 * `URL.parse`, which Node 20 and the browsers of 2023 do not have.
 *
 * @returns the URL, or null where the text is none
 */
export function parseUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null;
}
