/** Whether housekeeping does its rounds by itself, as it does where the program runs. Read by `test/setup.ts`. */
export const housekeeping = { isArmed: false };
