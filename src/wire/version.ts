/** The version of this program, the same for server, library and command. A test holds it to `package.json`. */
export const VERSION = "0.1.0";

/** On every answer of the server: which version it is. */
export const VERSION_HEADER = "X-Sallyport-Version";
