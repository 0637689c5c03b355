import { describe, expect, test } from "vitest";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import { createGroupCommit, type GroupCommit } from "../../../src/gate/storage/group-commit.ts";
import { ProxyError } from "../../../src/wire/problem.ts";
import { onStorage } from "../../support/gate.ts";

/** A table, and how many groups were committed with how many effects each. */
function onTable<T>(
  work: (table: {
    insert: (n: number) => void;
    rows: () => number[];
    groups: number[];
    storage: DurableObjectStorage;
  }) => Promise<T>,
): Promise<T> {
  return onStorage((sql, storage) => {
    sql.exec("CREATE TABLE numbers (n INTEGER PRIMARY KEY)");
    return work({
      insert: (n) => void sql.exec("INSERT INTO numbers (n) VALUES (?)", n),
      rows: () =>
        sql
          .exec<{ n: number }>("SELECT n FROM numbers ORDER BY n")
          .toArray()
          .map(({ n }) => n),
      groups: [],
      storage,
    });
  });
}

/** Commits with a hook. */
function committing(
  storage: DurableObjectStorage,
  hook: (effects: number) => void,
  onBroken: (error: unknown) => void,
  now?: () => number,
): GroupCommit {
  const commits = createGroupCommit(storage, onBroken, now);
  commits.beforeCommit(hook);
  return commits;
}

const never = (error: unknown): void => {
  throw error;
};

describe("a group commit", () => {
  test("makes two of 64 effects that come together: the first while idle, and all the others", async () => {
    const groups = await onTable(async ({ insert, rows, groups: seen, storage }) => {
      const commits = committing(
        storage,
        (effects) => void seen.push(effects),
        never,
        () => 0,
      );
      await Promise.all(Array.from({ length: 64 }, (_, n) => commits.commit(() => insert(n))));
      expect(rows()).toHaveLength(64);
      return seen;
    });
    expect(groups).toEqual([1, 63]);
  });

  test("has applied an effect that comes while idle when the call returns", async () => {
    await onTable(async ({ insert, rows, storage }) => {
      const commits = committing(storage, () => {}, never);
      const committed = commits.commit(() => insert(1));
      expect(rows()).toEqual([1]);
      await committed;
    });
  });

  test("puts what an effect or the work of a group asks for into the next group", async () => {
    const groups = await onTable(async ({ insert, rows, groups: seen, storage }) => {
      const later: Promise<void>[] = [];
      const commits = committing(
        storage,
        (effects) => {
          seen.push(effects);
          if (seen.length === 1) later.push(commits.commit(() => insert(3)));
        },
        never,
        () => 0,
      );
      await commits.commit(() => {
        insert(1);
        later.push(commits.commit(() => insert(2)));
      });
      await Promise.all(later);
      expect(rows()).toEqual([1, 2, 3]);
      return seen;
    });
    expect(groups).toEqual([1, 2]);
  });

  test("undoes an effect that refuses, and that one alone, and counts it for nothing", async () => {
    await onTable(async ({ insert, rows, groups, storage }) => {
      const commits = committing(storage, (effects) => void groups.push(effects), never);
      const refusing = (refusal: Error) => () => {
        insert(2);
        throw refusal;
      };
      const outcomes = await Promise.allSettled([
        commits.commit(() => insert(1), 1),
        commits.commit(refusing(new GateRefusal("gate-outbox-full")), 1),
        commits.commit(refusing(new ProxyError("PROXY_RELAY_QUEUE_FULL")), 1),
        commits.commit(() => insert(3), 1),
      ]);
      expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
      expect(rows()).toEqual([1, 3]);
      expect(groups).toEqual([2]);
    });
  });

  test("starts the object anew when an effect fails: what it did to memory is not undone", async () => {
    await onTable(async ({ insert, groups, storage }) => {
      const faults: unknown[] = [];
      const commits = committing(
        storage,
        (effects) => void groups.push(effects),
        (error) => void faults.push(error),
      );
      const outcomes = await Promise.allSettled([
        commits.commit(() => insert(1), 1),
        commits.commit(() => insert(1), 1),
      ]);
      expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
      expect({ faults: faults.length, groups }).toEqual({ faults: 1, groups: [] });
    });
  });

  test("refuses an effect that checks before it writes, without a savepoint, and that one alone", async () => {
    await onTable(async ({ insert, rows, storage }) => {
      const commits = committing(storage, () => {}, never);
      const outcomes = await Promise.allSettled([
        commits.commitChecked(() => insert(1)),
        commits.commitChecked(() => {
          throw new GateRefusal("gate-nonce-replayed");
        }),
        commits.commitChecked(() => insert(3)),
      ]);
      expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
      expect(rows()).toEqual([1, 3]);
    });
  });

  test("starts the object anew when an effect fails that was to check before it writes", async () => {
    const broken = await onTable(async ({ insert, storage }) => {
      const faults: unknown[] = [];
      const commits = committing(
        storage,
        () => {},
        (error) => void faults.push(error),
      );
      const outcomes = await Promise.allSettled([
        commits.commitChecked(() => insert(1), 1),
        commits.commitChecked(() => {
          insert(2);
          insert(1);
        }, 1),
      ]);
      return { faults: faults.length, statuses: outcomes.map(({ status }) => status) };
    });
    expect(broken).toEqual({ faults: 1, statuses: ["rejected", "rejected"] });
  });

  test("hands each caller its own result, in the order of calling", async () => {
    await onTable(async ({ storage }) => {
      const order: number[] = [];
      const commits = committing(storage, () => {}, never);
      const results = await Promise.all([1, 2, 3].map((n) => commits.commit(() => (order.push(n), n * 10))));
      expect({ order, results }).toEqual({ order: [1, 2, 3], results: [10, 20, 30] });
    });
  });

  test("takes an effect that can wait along with one that cannot", async () => {
    const groups = await onTable(async ({ insert, groups: seen, storage }) => {
      const commits = committing(storage, (effects) => void seen.push(effects), never);
      await Promise.all([commits.commit(() => insert(1), 60_000), commits.commit(() => insert(2))]);
      return seen;
    });
    expect(groups).toEqual([2]);
  });

  test("that is only woken does the work that belongs to every group", async () => {
    const groups = await onTable(async ({ groups: seen, storage }) => {
      await new Promise<void>((resolve) => {
        const commits = committing(storage, (effects) => (seen.push(effects), resolve()), never);
        commits.wake(60_000);
        commits.wake();
      });
      return seen;
    });
    expect(groups).toEqual([0]);
  });

  test("whose own work fails confirms nothing and declares the object broken", async () => {
    await onTable(async ({ insert, storage }) => {
      const broken: unknown[] = [];
      const fault = new Error("disk full");
      const commits = committing(
        storage,
        () => {
          throw fault;
        },
        (error) => void broken.push(error),
      );
      await expect(commits.commit(() => insert(1))).rejects.toBe(fault);
      expect(broken).toEqual([fault]);
    });
  });
});
