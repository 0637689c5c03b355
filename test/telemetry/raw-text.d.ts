/** A file as text, read by the bundler. */
declare module "*?raw" {
  const text: string;
  export default text;
}
