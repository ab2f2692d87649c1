//! Explored runs: the order in which goroutines run is drawn by lot, the same for the same seed.
//!
//! The scheduler of a plain run is fair and quick, and so takes the same few of all possible orders
//! over and over. A test that looks for a race wants the others: at every switch one of all that
//! can run goes on (`chooseNext` in processor.zig), and a goroutine may have to give way at each of
//! the program's calls (`giveWay`; zsrc/python/points.zig says which those are). Nothing is added
//! to the paths of a plain run for it: `attention` stays set, so that pickNext takes its slow path.
//!
//! No single way to draw finds all: a fair walk hardly ever lets one goroutine lag far behind, and
//! one by priorities never lets two take turns. So seeds that follow each other take the strategies
//! in turn. In virtual time the earliest timer is one more that could go on: a goroutine may be as
//! slow as any time-out is long. How readily it does is drawn for each seed.
const std = @import("std");
const g_mod = @import("g.zig");
const G = g_mod.G;

/// Where virtual time begins: at a whole second, so that times as Python's floats are exact for
/// longer.
pub fn firstOf(now_ns: u64) u64 {
    return (now_ns / std.time.ns_per_s + 1) * std.time.ns_per_s;
}

/// Steele, Lea and Flood's SplitMix64: seeds that lie close together give streams that do not.
pub const Chance = struct {
    state: u64 = 0,

    pub fn init(seed: u64) Chance {
        return .{ .state = seed };
    }

    pub fn next(c: *Chance) u64 {
        c.state +%= 0x9e3779b97f4a7c15;
        var z = c.state;
        z = (z ^ z >> 30) *% 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) *% 0x94d049bb133111eb;
        return z ^ z >> 31;
    }

    /// From 0 to n - 1; 0 for n of 0.
    pub fn below(c: *Chance, n: usize) usize {
        return @intCast(@as(u128, c.next()) * n >> 64);
    }
};

pub const Strategy = enum {
    /// One of all, each as likely.
    uniform,
    /// Who runs goes on, mostly.
    sticky,
    /// By priorities, which change at one or two points: Burckhardt and others' PCT (ASPLOS 2010),
    /// which finds what needs an order of two or three events.
    priorities_2,
    priorities_3,
    /// Who went on draws anew: the basic form of Yuan, Yang and Gu's partial order sampling (CAV
    /// 2018).
    sampling,
};

/// Who goes on, in an explored run.
pub const Chooser = struct {
    chance: Chance = .{},
    strategy: Strategy = .uniform,
    /// At which choices the one with the highest priority loses it.
    changes: [2]u64 = @splat(never),
    choices: u64 = 0,
    /// The next of the priorities that are lower than all that were drawn.
    lowest: u64 = most_lowered,
    /// Who went on last, and how often in a row.
    last: u64 = 0,
    in_a_row: u32 = 0,
    /// One in so many times another goes on than the one that runs.
    stickiness: usize = 16,
    /// Of 256: how often a timer fires though goroutines could run.
    haste: usize = 0,

    const never = std.math.maxInt(u64);
    const most_lowered = 1 << 32;
    /// One that waits for others in a loop has to let them run.
    const longest_row = 64;
    const hastes = [_]usize{ 0, 8, 32, 96 };

    pub fn init(seed: u64) Chooser {
        var c: Chooser = .{ .chance = .init(seed) };
        const strategies = std.enums.values(Strategy);
        c.strategy = strategies[@intCast(seed % strategies.len)];
        c.haste = hastes[c.chance.below(hastes.len)];
        // Nobody knows how many choices there will be: as often among few as among many.
        for (&c.changes) |*at| {
            at.* = 1 + c.chance.below(@as(usize, 4) << @intCast(@min(c.chance.below(9), c.chance.below(9))));
        }
        c.stickiness = @as(usize, 2) << @intCast(c.chance.below(4));
        if (c.strategy == .priorities_2) c.changes[1] = never;
        return c;
    }

    pub fn timerFirst(c: *Chooser) bool {
        return c.haste > 0 and c.chance.below(256) < c.haste;
    }

    /// The place in the queue of who goes on; null if that is `current`, which need not wait.
    pub fn choose(c: *Chooser, queue: *g_mod.Queue, current: ?*G) ?usize {
        const all = queue.len + @intFromBool(current != null);
        std.debug.assert(all > 0);
        c.choices += 1;
        const at = switch (c.strategy) {
            .uniform => c.chance.below(all),
            .sticky => if (current != null and c.chance.below(c.stickiness) > 0) queue.len else c.chance.below(queue.len),
            .priorities_2, .priorities_3 => c.byPriority(queue, current),
            .sampling => blk: {
                const first = c.highest(queue, current);
                nth(queue, current, first).lot = 0;
                break :blk first;
            },
        };
        return if (at == queue.len) null else at;
    }

    fn byPriority(c: *Chooser, queue: *g_mod.Queue, current: ?*G) usize {
        var at = c.highest(queue, current);
        for (c.changes) |change| if (change == c.choices) {
            at = c.lower(queue, current, at);
        };
        const id = nth(queue, current, at).id;
        c.in_a_row = if (c.last == id) c.in_a_row + 1 else 0;
        if (c.in_a_row > longest_row) {
            at = c.lower(queue, current, at);
            c.in_a_row = 0;
        }
        c.last = nth(queue, current, at).id;
        return at;
    }

    /// Who is first then.
    fn lower(c: *Chooser, queue: *g_mod.Queue, current: ?*G, at: usize) usize {
        c.lowest -= 1;
        nth(queue, current, at).lot = c.lowest;
        return c.highest(queue, current);
    }

    fn highest(c: *Chooser, queue: *g_mod.Queue, current: ?*G) usize {
        var best: usize = 0;
        var most: u64 = 0;
        var i: usize = 0;
        var it = queue.head;
        while (it) |g| : (it = g.next) {
            if (c.lotOf(g) > most) {
                most = g.lot;
                best = i;
            }
            i += 1;
        }
        if (current) |g| if (c.lotOf(g) > most) return queue.len;
        return best;
    }

    fn lotOf(c: *Chooser, g: *G) u64 {
        if (g.lot == 0) g.lot = c.chance.next() | most_lowered << 1;
        return g.lot;
    }

    fn nth(queue: *g_mod.Queue, current: ?*G, at: usize) *G {
        var it = queue.head;
        var left = at;
        while (it) |g| : (it = g.next) {
            if (left == 0) return g;
            left -= 1;
        }
        return current.?;
    }
};

test "every strategy lets each of three go on, whoever spins" {
    for (1..51) |seed| {
        var gs: [3]G = @splat(.{});
        var queue: g_mod.Queue = .{};
        for (&gs, 1..) |*g, i| {
            g.id = i;
            queue.push(g);
        }
        var c: Chooser = .init(seed);
        var counts: [3]u32 = @splat(0);
        for (0..2000) |_| {
            const g = queue.takeAt(c.choose(&queue, null).?).?;
            counts[@intCast(g.id - 1)] += 1;
            queue.push(g);
        }
        for (counts) |count| try std.testing.expect(count > 0);
    }
}

test "chance is fair, and the same for a seed" {
    var counts: [5]u32 = @splat(0);
    for (1..1001) |seed| {
        var a: Chance = .init(seed);
        var b: Chance = .init(seed);
        try std.testing.expectEqual(a.next(), b.next());
        counts[a.below(5)] += 1;
        try std.testing.expectEqual(0, a.below(0));
    }
    for (counts) |count| try std.testing.expect(count > 150 and count < 250);
}
