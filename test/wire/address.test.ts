import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { countedAddress } from "../../src/wire/address.ts";

const group = fc.integer({ min: 0, max: 0xffff });
const hex = (value: number): string => value.toString(16);

describe("the address of a caller", () => {
  property.prop([fc.ipV4()])("is the IPv4 address in every dress that it comes in", (ipv4) => {
    const [a = 0, b = 0, c = 0, d = 0] = ipv4.split(".").map(Number);
    const low = `${hex(a * 256 + b)}:${hex(c * 256 + d)}`;
    const dressed = [
      ipv4,
      `::ffff:${ipv4}`,
      `::FFFF:${low}`,
      `0:0:0:0:0:ffff:${ipv4}`,
      `0000:0000:0000:0000:0000:ffff:${low}`,
      `64:ff9b::${ipv4}`,
      `64:FF9B:0:0:0:0:${low}`,
      ` ::ffff:${ipv4}%eth0 `,
    ];
    expect(new Set(dressed.map(countedAddress))).toEqual(new Set([ipv4]));
    if (a * 256 + b > 0) expect(countedAddress(`::${ipv4}`)).toBe(ipv4);
  });

  property.prop([
    fc.tuple(fc.integer({ min: 0x2000, max: 0x3fff }), group, group, group),
    fc.tuple(group, group, group, group),
    fc.tuple(group, group, group, group),
  ])("is the /64 of any other IPv6 address", (network, one, other) => {
    const full = (host: number[]): string => [...network, ...host].map(hex).join(":");
    const padded = [...network, ...other].map((each) => hex(each).padStart(4, "0").toUpperCase()).join(":");
    expect(countedAddress(full(one))).toBe(`${network.map(hex).join(":")}::/64`);
    expect(countedAddress(padded)).toBe(countedAddress(full(one)));
  });

  test.each([
    ["::", "0:0:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["2001:0DB8:0:1::", "2001:db8:0:1::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["64:ff9b:1::192.0.2.1", "64:ff9b:1:0::/64"],
    ["::fffe:192.0.2.1", "0:0:0:0::/64"],
    ["1::192.0.2.1", "1:0:0:0::/64"],
  ])("%s is counted as %s", (text, counted) => {
    expect(countedAddress(text)).toBe(counted);
  });

  test.each([
    "",
    "unknown",
    "1.2.3",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.4.5",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::8",
    "::12345",
    "::g",
    "::1.2.3",
    "1.2.3.4::",
    "::1.2.3.4:5",
  ])("%j is none", (text) => {
    expect(countedAddress(text)).toBeNull();
  });
});
