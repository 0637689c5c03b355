/** Text out of files and of standard input. */

const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * @param bytes what was read
 * @returns the text, without the byte order mark that some editors put before it (RFC 3629 §6); null when it is no UTF-8,
 *          which is never replaced in silence
 */
export function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
