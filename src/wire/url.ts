/**
 * `URL.parse`, which Node 20 and the browsers of 2023 do not have.
 *
 * @param base what a relative one is relative to
 * @returns the URL, or null where the text is none
 */
export function parseUrl(text: string, base?: string): URL | null {
  return URL.canParse(text, base) ? new URL(text, base) : null;
}
