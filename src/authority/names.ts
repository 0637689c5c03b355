/** Names and epochs of authorities, as their fencing tokens in D1 carry them. */

/** The fencing token of a key that is over. A key is ended once and its id never comes again. */
export const ENDED_EPOCH = 1;

export const deviceAuthority = (self: string, deviceId: string): string => `device:${self}/${deviceId}`;

export const apiKeyAuthority = (apiKeyId: string): string => `apikey:${apiKeyId}`;

export const sharedAuthority = (self: string): string => `shared:${self}`;
