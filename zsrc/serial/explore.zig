//! Explored runs: the order in which goroutines run is drawn by lot, the same for the same seed.
//!
//! The scheduler of a plain run is fair and quick, and so takes the same few of all possible orders
//! over and over. A test that looks for a race wants the others: at every switch one of all that
//! can run goes on (`chooseNext` in processor.zig), and a goroutine may have to give way at each of
//! the program's calls (`giveWay`; zsrc/python/host/points.zig says which those are). Nothing is
//! added to the paths of a plain run for it: `attention` stays set, so that pickNext takes its slow
//! path.
//!
//! No single way to draw finds all: a fair walk hardly ever lets one goroutine lag far behind, and
//! one by priorities never lets two take turns. So seeds that follow each other take the strategies
//! in turn. In virtual time the earliest timer is one more that could go on: a goroutine may be as
//! slow as any time-out is long. How readily it does is drawn for each seed.
//!
//! A small test makes a dozen choices, and its bug often needs one preemption, at one of them. To
//! draw that preemption, and none before it, may take long. So where each call is a choice, six of
//! any twenty seeds in a row do not draw the beginning: it happens by itself but for one choice,
//! the second, third, ... or seventh (`Head`). The first needs no help, as no draw comes before it.
//! What comes after that is drawn as ever, so that a long test loses nothing.
//!
//! With each strategy every choice is written down, and a run can be made again from that alone
//! (script.zig).
const std = @import("std");
const g_mod = @import("g.zig");
const script_mod = @import("script.zig");
const G = g_mod.G;
const Kind = script_mod.Kind;
pub const Script = script_mod.Script;

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
    /// Mostly the running goroutine goes on.
    sticky,
    /// By priorities, which change at one or two points: Burckhardt and others' PCT (ASPLOS 2010),
    /// which finds what needs an order of two or three events.
    priorities_2,
    priorities_3,
    /// The goroutine that went on draws anew, and so do those about to use the same object: Yuan,
    /// Yang and Gu's partial order sampling (CAV 2018).
    sampling,
    /// What happens by itself: for runs that follow a plan (script.zig).
    first,

    /// In turn. In small tests, which most are, walks and samples find more than the others.
    const drawn = [_]Strategy{
        .uniform, .sampling, .priorities_3, .uniform,      .sampling,
        .sticky,  .uniform,  .sampling,     .priorities_2, .priorities_3,
    };
};

/// The choices that come before those that are drawn, if there are any.
const Head = struct {
    /// Which of them is not what happens by itself, from 1 on; 0 if there are none.
    odd: u8 = 0,
    taken: u8 = 0,

    /// By the seed's last digits, for those that go by priorities: in small tests these find least,
    /// and in long ones their changes are as good a little later.
    const of_seeds = [_]u8{ 0, 0, 2, 0, 0, 0, 0, 0, 3, 6, 0, 0, 4, 0, 0, 0, 0, 0, 5, 7 };
    /// What the odd one has led to must not be upset at once.
    const after_odd = 3;
    /// An odd choice after this one leaves to chance which goroutine is next when one waits or
    /// ends: other orders than that of the queue also get their turn.
    const last_in_order = 5;

    fn of(seed: u64) Head {
        return .{ .odd = of_seeds[@intCast(seed % of_seeds.len)] };
    }

    /// null behind the end.
    fn take(h: *Head, chance: *Chance, kind: Kind, options: usize) ?usize {
        if (h.odd == 0 or h.taken == h.odd + after_odd) return null;
        h.taken += 1;
        if (h.taken == h.odd) return 1 + chance.below(options - 1);
        return if (kind == .next and h.odd > last_in_order) chance.below(options) else 0;
    }
};

/// Chooses the goroutine that goes on, in an explored run.
pub const Chooser = struct {
    script: *Script = undefined,
    gpa: std.mem.Allocator = undefined,
    chance: Chance = .{},
    strategy: Strategy = .first,
    head: Head = .{},
    /// At which of those that are drawn the one with the highest priority loses it.
    changes: [2]u64 = @splat(never),
    drawn: u64 = 0,
    /// The next of the priorities that are lower than all that were drawn.
    lowest: u64 = most_lowered,
    /// The goroutine that went on last, and how often in a row.
    last: u64 = 0,
    in_a_row: u32 = 0,
    /// How often in a row the running one went on after a call though others could.
    kept_on: u32 = 0,
    /// One in so many times another goes on than the one that runs.
    stickiness: usize = 16,
    /// Those that have not begun go first: they are about their first calls then, as all others
    /// are.
    eager: bool = false,
    /// Of 256: how often a timer fires though goroutines could run; and whether any may.
    haste: usize = 0,
    early_timers: bool = true,

    const never = std.math.maxInt(u64);
    const most_lowered = 1 << 32;
    /// One that waits for others in a loop has to let them run.
    const longest_row = 64;
    const hastes = [_]usize{ 0, 16, 48, 112 };

    pub fn init(gpa: std.mem.Allocator, script: *Script, seed: u64, follows: bool) Chooser {
        var c: Chooser = .{ .gpa = gpa, .script = script, .chance = .init(seed) };
        if (follows) return c;
        c.strategy = Strategy.drawn[@intCast(seed % Strategy.drawn.len)];
        c.haste = hastes[c.chance.below(hastes.len)];
        // How many choices there will be is not known: as often among few as among many.
        for (&c.changes) |*at| {
            at.* = 1 + c.chance.below(
                @as(usize, 4) << @intCast(@min(c.chance.below(9), c.chance.below(9))),
            );
        }
        c.stickiness = @as(usize, 2) << @intCast(c.chance.below(4));
        if (c.strategy == .priorities_2) c.changes[1] = never;
        c.eager = (c.strategy == .uniform or c.strategy == .sampling) and c.chance.below(4) > 0;
        return c;
    }

    /// For runs in which calls are choices: without them there are so few that a beginning which
    /// is not drawn may be all.
    pub fn withHead(c: *Chooser, seed: u64) void {
        if (c.strategy != .first) c.head = .of(seed);
    }

    pub fn timerFirst(c: *Chooser) bool {
        if (!c.early_timers) return false;
        const taken = c.script.planned(.early, 2) orelse
            c.head.take(&c.chance, .early, 2) orelse
            @intFromBool(c.haste > 0 and c.chance.below(256) < c.haste);
        c.script.note(c.gpa, .early, 2, 1, taken);
        return taken == 1;
    }

    /// One of `options` that are alike.
    pub fn which(c: *Chooser, kind: Kind, options: usize) usize {
        if (options < 2) return 0;
        const taken = c.script.planned(kind, options) orelse
            if (c.strategy == .first) 0 else c.chance.below(options);
        c.script.note(c.gpa, kind, options, options, taken);
        return taken;
    }

    /// The place in the queue of the goroutine that goes on; null if that is `current`, which need
    /// not wait.
    pub fn choose(c: *Chooser, queue: *g_mod.Queue, current: ?*G) ?usize {
        const all = queue.len + @intFromBool(current != null);
        std.debug.assert(all > 0);
        const kind: Kind = if (current == null) .next else .call;
        const order: Order = .init(queue, current != null and c.kept_on < longest_row);
        const given = if (all > 1)
            c.script.planned(kind, all) orelse c.head.take(&c.chance, kind, all)
        else
            0;
        const at = if (given) |option| order.placeOf(option) else switch (c.strategy) {
            .first => order.placeOf(0),
            else => c.draw(queue, current),
        };
        if (all > 1) c.script.note(c.gpa, kind, all, order.free, order.optionOf(at));
        c.kept_on = if (at == queue.len) c.kept_on + 1 else 0;
        nth(queue, current, at).gave_way = false;
        return if (at == queue.len) null else at;
    }

    fn draw(c: *Chooser, queue: *g_mod.Queue, current: ?*G) usize {
        const all = queue.len + @intFromBool(current != null);
        c.drawn += 1;
        if (c.eager) if (firstThatHasNotBegun(queue)) |at| return at;
        return switch (c.strategy) {
            .uniform => c.chance.below(all),
            .sticky => if (current != null and c.chance.below(c.stickiness) > 0)
                queue.len
            else
                c.chance.below(queue.len),
            .priorities_2, .priorities_3 => c.byPriority(queue, current),
            .sampling => c.sample(queue, current),
            .first => unreachable,
        };
    }

    fn firstThatHasNotBegun(queue: *g_mod.Queue) ?usize {
        var at: usize = 0;
        var it = queue.head;
        while (it) |g| : (it = g.next) {
            if (g.sp == 0) return at;
            at += 1;
        }
        return null;
    }

    fn sample(c: *Chooser, queue: *g_mod.Queue, current: ?*G) usize {
        const at = c.highest(queue, current);
        const first = nth(queue, current, at);
        first.lot = 0;
        if (first.at_object != 0) {
            var it = queue.head;
            while (it) |g| : (it = g.next) {
                if (g.at_object == first.at_object) g.lot = 0;
            }
            if (current) |g| if (g.at_object == first.at_object) {
                g.lot = 0;
            };
        }
        return at;
    }

    fn byPriority(c: *Chooser, queue: *g_mod.Queue, current: ?*G) usize {
        var at = c.highest(queue, current);
        for (c.changes) |change| if (change == c.drawn) {
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

    /// Gives the goroutine at `at` the lowest priority. Returns the place of the first one then.
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

/// The options of a choice between goroutines. The running goroutine is first, and all others are a
/// preemption; else the queue comes first, and behind it those that gave way to others before them
/// there, lest two that wait in a loop let only each other run, for nothing. At the end is the
/// running goroutine, if it has run for too long.
const Order = struct {
    queue: *g_mod.Queue,
    stays: bool,
    free: usize,

    fn init(queue: *g_mod.Queue, stays: bool) Order {
        if (stays) return .{ .queue = queue, .stays = true, .free = 1 };
        var free: usize = 0;
        var it = queue.head;
        while (it) |g| : (it = g.next) free += @intFromBool(isFree(queue, g));
        return .{ .queue = queue, .stays = false, .free = free };
    }

    fn isFree(queue: *g_mod.Queue, g: *G) bool {
        return g == queue.head or !g.gave_way;
    }

    /// The place in the queue; the queue's length stands for the running goroutine.
    fn placeOf(o: Order, option: usize) usize {
        if (o.stays) return if (option == 0) o.queue.len else option - 1;
        for (0..o.queue.len) |place| if (o.optionOf(place) == option) return place;
        return o.queue.len;
    }

    fn optionOf(o: Order, place: usize) usize {
        if (o.stays) return if (place == o.queue.len) 0 else place + 1;
        var free: usize = 0;
        var others: usize = 0;
        var it = o.queue.head;
        for (0..place) |_| {
            if (isFree(o.queue, it.?)) free += 1 else others += 1;
            it = it.?.next;
        }
        const g = it orelse return o.queue.len;
        return if (isFree(o.queue, g)) free else o.free + others;
    }
};

test "options are in order, and each has its place" {
    var gs: [4]G = @splat(.{});
    var queue: g_mod.Queue = .{};
    for (&gs) |*g| queue.push(g);
    for (gs[0..2]) |*g| g.gave_way = true;
    for (
        [_]bool{ true, false },
        [_][5]usize{ .{ 4, 0, 1, 2, 3 }, .{ 0, 2, 3, 1, 4 } },
        [_]usize{ 1, 3 },
    ) |stays, places, free| {
        const order: Order = .init(&queue, stays);
        try std.testing.expectEqual(free, order.free);
        for (places, 0..) |place, option| {
            try std.testing.expectEqual(place, order.placeOf(option));
            try std.testing.expectEqual(option, order.optionOf(place));
        }
    }
}

test "a run is made again by what was written down of it" {
    const gpa = std.testing.allocator;
    var script: Script = .{};
    defer script.deinit(gpa);
    for (1..21) |seed| {
        try script.begin(gpa, &.{}, false);
        var order: [2][40]u64 = undefined;
        for (&order, 0..) |*ids, time| {
            var gs: [4]G = @splat(.{});
            var queue: g_mod.Queue = .{};
            for (&gs, 1..) |*g, i| {
                g.id = i;
                if (i < gs.len) queue.push(g);
            }
            var c: Chooser = .init(gpa, &script, seed, time == 1);
            c.withHead(seed);
            var current: *G = &gs[3];
            for (ids) |*id| {
                if (c.choose(&queue, current)) |at| {
                    const g = queue.takeAt(at).?;
                    queue.push(current);
                    current = g;
                }
                id.* = current.id +
                    10 * c.which(.case, 3) + 100 * @as(u64, @intFromBool(c.timerFirst()));
            }
            const made = try gpa.dupe(u8, std.mem.sliceAsBytes(script.made.items));
            defer gpa.free(made);
            try script.begin(gpa, made, false);
        }
        try std.testing.expectEqual(order[0], order[1]);
    }
}

test "twenty seeds in a row take each of the first choices but for one by themselves" {
    const gpa = std.testing.allocator;
    var script: Script = .{};
    defer script.deinit(gpa);
    for ([_]u64{ 1, 14, 1 << 62, std.math.maxInt(u64) - 19 }) |first| {
        var counts: [8]u32 = @splat(0);
        for (0..20) |more| {
            try script.begin(gpa, &.{}, false);
            var waiting: G = .{ .id = 1 };
            var running: G = .{ .id = 2 };
            var queue: g_mod.Queue = .{};
            queue.push(&waiting);
            var c: Chooser = .init(gpa, &script, first + more, false);
            c.withHead(first + more);
            for (0..11) |_| _ = c.choose(&queue, &running);
            if (c.head.odd == 0) continue;
            counts[c.head.odd] += 1;
            for (script.made.items[0 .. c.head.odd + Head.after_odd], 1..) |choice, number| {
                try std.testing.expectEqual(number == c.head.odd, choice.taken == 1);
            }
        }
        try std.testing.expectEqual([_]u32{ 0, 0, 1, 1, 1, 1, 1, 1 }, counts);
    }
}

test "every strategy lets each of three go on, whichever spins" {
    for (1..51) |seed| {
        var gs: [3]G = @splat(.{});
        var queue: g_mod.Queue = .{};
        for (&gs, 1..) |*g, i| {
            g.id = i;
            queue.push(g);
        }
        var script: Script = .{};
        defer script.deinit(std.testing.allocator);
        var c: Chooser = .init(std.testing.allocator, &script, seed, false);
        c.withHead(seed);
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
