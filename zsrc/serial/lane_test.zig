//! The lane without Python: on a host with a mutex for a lock, Zig functions for goroutines and a
//! note for a poller.
const std = @import("std");
const os = @import("../os/os.zig");
const g_mod = @import("g.zig");
const m_mod = @import("m.zig");
const lane_mod = @import("lane.zig");
const inbox_mod = @import("inbox.zig");
const sysmon = @import("sysmon.zig");
const ranks = @import("ranks.zig");
const chan_mod = @import("../sync/chan.zig");
const wg_mod = @import("../sync/waitgroup.zig");

const G = g_mod.G;
const M = m_mod.M;
pub const Lane = lane_mod.Lane(Host);
pub const Rt = @import("waiting.zig").Waiting(Lane);
const gpa = std.heap.c_allocator;

pub var lane: Lane = .{ .gpa = gpa };
var mutex: lane_mod.Lock = .{};
var poll_note: os.Note = .{};
/// This M's next swap to g0 gives the mutex away until another M has nothing left to do.
var swap_waits: ?*M = null;
var swap_may_end: std.atomic.Value(bool) = .init(false);
var deadlocks: u32 = 0;
/// Of a thread that comes in while it is looked whether there is a deadlock.
var let_in: ?*os.Note = null;
var offer_interval_ns: u64 = std.math.maxInt(u64);
var offers: u32 = 0;
/// Kept for events.
pub var places: usize = 0;

/// A goroutine of the tests. `inside` is whether its thread holds the mutex for it.
pub const T = struct {
    g: G = .{},
    inside: std.atomic.Value(bool) = .init(false),
    function: *const fn (*T) void,
    value: u64 = 0,
    freed: bool = false,
    /// As if it were in a call of code that holds something of its thread's.
    keeps_thread: bool = false,

    pub fn of(g: *G) *T {
        return @fieldParentPtr("g", g);
    }

    pub fn current() *T {
        return of(lane.here().?);
    }
};

const Host = struct {
    pub var inbox: inbox_mod.Inbox = .{};

    pub fn lane() *Lane {
        return &@import("lane_test.zig").lane;
    }
    pub fn acquire(m: *M) void {
        const asked = self().lockAsked();
        mutex.lock();
        m.lock_waited_ns = if (asked == 0) 0 else os.nanotime() -| asked;
    }
    pub fn release(m: *M) void {
        mutex.unlock();
        m.wakeSuccessor();
    }
    pub fn enterThread(_: *M) void {}
    pub fn leaveThread(m: *M) void {
        if (!m.main) mutex.unlock();
    }
    pub fn swap(m: *M, next: ?*G) void {
        // As an interpreter that lets others in between two thread states.
        mutex.unlock();
        if (next == null and m == swap_waits) while (!swap_may_end.load(.acquire)) os.sleepNs(1000);
        mutex.lock();
        m.state.store(if (next) |g| stateOf(g) else null, .monotonic);
        if (next) |g| T.of(g).inside.store(true, .monotonic);
    }
    pub fn prefetch(_: *G) void {}
    pub fn stateOf(g: *G) *anyopaque {
        return T.of(g);
    }
    pub fn start(g: *G) !void {
        g.stack = try self().stacks.get();
    }
    fn self() *Lane {
        return Host.lane();
    }
    pub fn runBody(g: *G) void {
        T.of(g).function(T.of(g));
    }
    pub fn adopt(from: *G, to: *G) bool {
        to.stack = from.stack;
        to.sp = 1;
        T.of(to).inside.store(true, .monotonic);
        return true;
    }
    pub fn free(g: *G) void {
        T.of(g).freed = true;
    }
    pub fn recycle(g: *G) void {
        self().stacks.put(g.stack);
        T.of(g).freed = true;
    }
    pub fn stackTop(g: *G) usize {
        return g.stack.hi();
    }
    pub fn bury(g: *G) void {
        T.of(g).freed = true;
    }
    pub fn refuse(_: *G) void {}
    pub fn keepsThread(g: *G) bool {
        return T.of(g).keeps_thread;
    }
    pub fn endRefused() void {}
    pub fn attachment(state: *anyopaque) lane_mod.Attachment {
        const t: *T = @ptrCast(@alignCast(state));
        return if (t.inside.load(.monotonic)) .attached else .detached;
    }
    pub fn offerInterval() u64 {
        return offer_interval_ns;
    }
    pub fn offerLock() void {
        offers += 1;
        // On g0 there is no goroutine, so no P could be taken.
        const t = T.of(self().running orelse return);
        t.inside.store(false, .monotonic);
        // sysmon sends one to take the P.
        self().startM(.hand_off, .{ .m = t.g.m.?.id, .tick = self().tick.raw }) catch unreachable;
        mutex.unlock();
        os.sleepNs(std.time.ns_per_ms);
        mutex.lock();
        t.inside.store(true, .monotonic);
    }

    pub fn preemptLead() u64 {
        return 0;
    }
    pub fn requestPreempt(_: *M) bool {
        return true;
    }
    pub fn armPreempt(_: *G) void {}
    pub fn pollWanted() bool {
        return false;
    }
    pub fn pollNow() void {}
    pub fn signalCame() void {}
    pub fn signalsWatched() bool {
        return false;
    }
    pub fn handlesSignals() bool {
        return false;
    }
    pub fn carryMain(_: *M) void {}
    pub fn pollResults() void {}
    pub fn pollWait(deadline: u64) os.Wake {
        const timeout: ?u64 = if (deadline == std.math.maxInt(u64))
            null
        else
            deadline -| os.nanotime();
        swap_may_end.store(true, .release);
        const wake = poll_note.sleep(timeout);
        if (wake == .woken) poll_note.clear();
        return wake;
    }
    pub fn pollBreak() void {
        poll_note.wake();
    }
    pub fn pollPending() bool {
        return false;
    }
    pub fn attend() void {}
    pub fn hopesForSignals() bool {
        return false;
    }
    pub fn onDeadlock() ?u64 {
        deadlocks += 1;
        swap_may_end.store(true, .release);
        if (let_in) |note| {
            mutex.unlock();
            _ = note.sleep(null);
            mutex.lock();
        }
        return 100 * std.time.ns_per_ms;
    }
    pub fn onSignal() void {}
    pub fn keepPlace(g: *G) u32 {
        places += 1;
        return @intCast(g.id);
    }
    pub fn dropPlace(_: u32) void {
        places -= 1;
    }
    pub fn block(_: *G, _: ?u64) void {
        unreachable;
    }
};

/// Leaves the mutex as a blocking call of an extension leaves the interpreter's lock.
pub fn blockFor(t: *T, ns: u64) void {
    t.inside.store(false, .monotonic);
    mutex.unlock();
    os.sleepNs(ns);
    mutex.lock();
    t.inside.store(true, .monotonic);
}

pub fn runMain(main: *T) !void {
    try runWith(.{ .stack_size = 256 * 1024 }, main);
}

pub fn runWith(options: lane_mod.Options, main: *T) !void {
    lock();
    defer unlock();
    try lane.run(options, &main.g);
}

pub fn lock() void {
    mutex.lock();
}

pub fn unlock() void {
    mutex.unlock();
}

pub const Chan = chan_mod.Chan(Rt, u64);

fn send(c: *Chan, value: u64) void {
    const t = T.current();
    var sent = value;
    _ = c.transfer(.send, &sent, &t.g, null);
}

fn recv(c: *Chan) ?u64 {
    const t = T.current();
    var out: u64 = undefined;
    return if (c.transfer(.recv, &out, &t.g, null) == .done) out else null;
}

test "goroutines talk over channels, and end" {
    const S = struct {
        var c: Chan = .{};
        var sum: u64 = 0;
        var producers: [50]T = undefined;

        fn produce(t: *T) void {
            for (0..100) |i| send(&c, t.value * 100 + i);
        }
        fn main(_: *T) void {
            for (&producers, 0..) |*p, i| {
                p.* = .{ .function = produce, .value = i };
                lane.go(&p.g);
            }
            for (0..50 * 100) |_| sum += recv(&c).?;
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(4999 * 5000 / 2, S.sum);
    for (&S.producers) |*p| try std.testing.expect(p.freed);
    try std.testing.expect(main.freed);
}

test "high priorities go first, low ones last, and none of them for ever" {
    const S = struct {
        var order: [6]u64 = undefined;
        var count: usize = 0;
        var one: Chan = .{};
        var two: Chan = .{};
        var turns: u64 = 0;
        var longest: [2]u64 = @splat(0);
        var ends = false;

        fn note(t: *T) void {
            order[count] = t.value;
            count += 1;
        }

        fn passOn(t: *T) void {
            const mine, const other = if (t.value == 0) .{ &one, &two } else .{ &two, &one };
            while (recv(mine)) |_| {
                turns += 1;
                if (ends) {
                    _ = other.close();
                    return;
                }
                send(other, 0);
            }
        }

        fn giveWay(t: *T) void {
            for (0..20) |_| {
                const before = turns;
                lane.gosched(lane.here().?);
                longest[t.value] = @max(longest[t.value], turns - before);
            }
        }

        fn start(t: *T, function: *const fn (*T) void, value: u64, priority: g_mod.Priority) void {
            t.* = .{ .function = function, .value = value };
            lane.setPriority(&t.g, priority);
            lane.go(&t.g);
        }

        fn main(_: *T) void {
            const priorities = [_]g_mod.Priority{ .low, .normal, .high, .low, .normal, .high };
            var noters: [6]T = undefined;
            for (&noters, priorities, 0..) |*t, priority, i| start(t, note, i, priority);
            while (count < 6) lane.gosched(lane.here().?);
            var pair: [2]T = undefined;
            for (&pair, 0..) |*t, i| start(t, passOn, i, .high);
            var others: [2]T = undefined;
            start(&others[0], giveWay, 0, .normal);
            start(&others[1], giveWay, 1, .low);
            send(&one, 0);
            for (&others) |*t| while (!t.freed) lane.gosched(lane.here().?);
            ends = true;
            for (&pair) |*t| while (!t.freed) lane.gosched(lane.here().?);
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual([_]u64{ 2, 5, 1, 4, 0, 3 }, S.order);
    // There are three in the run queue at most.
    const longest = [_]u64{ 3 * ranks.others_turns, ranks.join_turns + 3 * ranks.others_turns };
    for (S.longest, longest) |found, most| try std.testing.expect(found > 2 and found <= most);
}

test "timers wake sleepers in order, and time-outs leave a channel usable" {
    const S = struct {
        var order: [3]u64 = undefined;
        var n: usize = 0;
        var sleepers: [3]T = undefined;
        var c: Chan = .{};
        var timed_out = false;
        var began: u64 = 0;

        fn sleep(t: *T) void {
            lane.prepare(&t.g);
            _ = lane.park(&t.g, .sleep, began + t.value * std.time.ns_per_ms);
            order[n] = t.value;
            n += 1;
            if (n == 3) _ = c.close();
        }
        fn main(t: *T) void {
            began = os.nanotime();
            for (&sleepers, [_]u64{ 9, 3, 6 }) |*s, ms| {
                s.* = .{ .function = sleep, .value = ms };
                lane.go(&s.g);
            }
            var out: u64 = undefined;
            timed_out = c.transfer(.recv, &out, &t.g, os.nanotime() + 1000) == .timeout;
            while (recv(&c)) |_| {}
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqualSlices(u64, &.{ 3, 6, 9 }, &S.order);
    try std.testing.expect(S.timed_out);
    try std.testing.expectEqual(0, lane.timers.len());
}

test "a blocked goroutine loses its P, the others go on, and it comes back" {
    const S = struct {
        var c: Chan = .{};
        var blocker: T = undefined;
        var rounds: u64 = 0;
        var ended = false;
        var ticker: T = undefined;

        fn block(t: *T) void {
            var n: u32 = 0;
            // On a busy machine sysmon may come too late for all of the first ones.
            while (n < 20 or lane.counters.retakes == 0 or rounds == 0) : (n += 1) {
                blockFor(t, 2 * std.time.ns_per_ms);
                // Where the P was taken, this gets one back.
                _ = T.current();
            }
            ended = true;
            _ = c.close();
        }
        fn tick(_: *T) void {
            while (!ended) {
                rounds += 1;
                lane.gosched(&T.current().g);
                // As an interpreter's loop gives its lock to a thread that waits for it.
                mutex.unlock();
                os.sleepNs(std.time.ns_per_us);
                mutex.lock();
            }
        }
        fn main(_: *T) void {
            blocker = .{ .function = block };
            ticker = .{ .function = tick };
            lane.go(&blocker.g);
            lane.go(&ticker.g);
            while (recv(&c)) |_| {}
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expect(S.ended);
    try std.testing.expect(lane.counters.retakes > 0);
    try std.testing.expect(S.rounds > 0);
}

test "one that queues up after a blocking call counts as blocked until it is in the queue" {
    const S = struct {
        var c: Chan = .{};
        var blocker: T = undefined;
        var ticker: T = undefined;
        var seen: g_mod.Status = .idle;

        fn block(t: *T) void {
            while (lane.running == &t.g) blockFor(t, std.time.ns_per_ms);
            swap_may_end.store(false, .release);
            swap_waits = t.g.m;
            _ = T.current();
            swap_waits = null;
            _ = c.close();
        }
        /// Keeps the P from the blocker until that has come back, then leaves it nothing to do.
        fn tick(_: *T) void {
            while (swap_waits == null) {
                mutex.unlock();
                os.sleepNs(std.time.ns_per_us);
                mutex.lock();
            }
            // A lane that gave the runnable ones turn after turn would keep the lock from it.
            seen = blocker.g.status;
        }
        fn main(_: *T) void {
            blocker = .{ .function = block };
            ticker = .{ .function = tick };
            lane.go(&blocker.g);
            lane.go(&ticker.g);
            while (recv(&c)) |_| {}
        }
    };
    deadlocks = 0;
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(0, deadlocks);
    try std.testing.expectEqual(.syscall, S.seen);
}

/// A wait that a thread without the lane's lock ends.
const Letter = struct {
    entry: inbox_mod.Entry = .{ .arrive = arrive },
    g: *G,
    wanted: std.atomic.Value(bool) = .init(false),
    arrived: bool = false,

    fn arrive(e: *inbox_mod.Entry) void {
        const letter: *Letter = @fieldParentPtr("entry", e);
        letter.arrived = true;
        if (lane.claim(letter.g, .ready)) lane.readyLast(letter.g);
    }

    fn wait(letter: *Letter) void {
        letter.g = &T.current().g;
        lane.prepare(letter.g);
        lane.outside_waiters += 1;
        letter.wanted.store(true, .release);
        _ = lane.park(letter.g, .chan_receive, null);
        lane.outside_waiters -= 1;
    }
};

test "a thread makes goroutines ready, whether the lane is idle, busy or blocked" {
    const S = struct {
        const rounds = 300;
        const waiters = 3;
        var letters: [waiters][rounds]Letter = undefined;
        var goroutines: [waiters]T = undefined;
        var busy: T = undefined;
        var arrived: u32 = 0;
        var ended: u32 = 0;

        fn wait(t: *T) void {
            for (&letters[t.value]) |*letter| {
                letter.wait();
                if (letter.arrived) arrived += 1;
            }
            ended += 1;
        }
        /// Runs, blocks and leaves the lane idle by turns.
        fn work(t: *T) void {
            var turn: u32 = 0;
            while (ended < waiters) : (turn += 1) switch (turn % 4) {
                0 => blockFor(t, 20 * std.time.ns_per_us),
                1 => {
                    lane.prepare(&T.current().g);
                    _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
                },
                else => lane.gosched(&T.current().g),
            };
        }
        fn post(_: ?*anyopaque) void {
            for (0..rounds) |i| {
                for (0..waiters) |k| {
                    const letter = &letters[k][i];
                    while (!letter.wanted.load(.acquire)) os.sleepNs(1000);
                    lane.post(&letter.entry);
                }
            }
        }
        fn main(_: *T) void {
            busy = .{ .function = work };
            lane.go(&busy.g);
            for (&goroutines, 0..) |*g, i| {
                g.* = .{ .function = wait, .value = i };
                lane.go(&g.g);
            }
            while (ended < waiters) {
                const t = T.current();
                lane.prepare(&t.g);
                _ = lane.park(&t.g, .sleep, os.nanotime() + std.time.ns_per_ms);
            }
        }
    };
    for (&S.letters) |*row| for (row) |*letter| {
        letter.* = .{ .g = undefined };
    };
    deadlocks = 0;
    const poster = try os.spawn(S.post, null, .{});
    var main: T = .{ .function = S.main };
    try runMain(&main);
    poster.join();
    try std.testing.expectEqual(S.rounds * S.waiters, S.arrived);
    try std.testing.expectEqual(0, deadlocks);
}

test "a goroutine that is woken while a deadlock is looked for runs at once" {
    const S = struct {
        var waits: *G = undefined;
        var done: os.Note = .{};

        fn main(t: *T) void {
            lane.prepare(&t.g);
            waits = &t.g;
            _ = lane.park(&t.g, .lock, null);
        }
        fn wake(_: ?*anyopaque) void {
            while (true) : (os.sleepNs(1000)) {
                lock();
                defer unlock();
                if (deadlocks == 0) continue;
                std.debug.assert(lane.claim(waits, .ready));
                lane.readyLast(waits);
                return done.wake();
            }
        }
    };
    deadlocks = 0;
    let_in = &S.done;
    defer let_in = null;
    const waker = try os.spawn(S.wake, null, .{});
    var main: T = .{ .function = S.main };
    try runMain(&main);
    waker.join();
    try std.testing.expectEqual(0, lane.counters.idle);
}

test "a wait group waits for all" {
    const S = struct {
        var wg: wg_mod.WaitGroup(Rt) = .{};
        var workers: [10]T = undefined;
        var done: u64 = 0;

        fn work(t: *T) void {
            lane.gosched(&t.g);
            done += 1;
            wg.add(-1) catch unreachable;
        }
        fn main(t: *T) void {
            wg.add(workers.len) catch unreachable;
            for (&workers) |*w| {
                w.* = .{ .function = work };
                lane.go(&w.g);
            }
            _ = wg.wait(&t.g, null);
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(10, S.done);
    try std.testing.expectError(error.Negative, S.wg.add(-1));
}

test "a goroutine that lets others have the lock keeps its P" {
    const S = struct {
        var other: T = undefined;

        fn takeTurns(t: *T) void {
            while (offers < 10) lane.gosched(&t.g);
        }
        fn main(t: *T) void {
            other = .{ .function = takeTurns };
            lane.go(&other.g);
            takeTurns(t);
            while (!other.freed) lane.gosched(&t.g);
        }
    };
    offer_interval_ns = std.time.ns_per_ms;
    defer offer_interval_ns = std.math.maxInt(u64);
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(0, lane.counters.retakes);
    try std.testing.expectEqual(0, lane.counters.handoffs);
}

test "sysmon looks again when the slice that it saw begin ends" {
    const ms = std.time.ns_per_ms;
    const never = std.math.maxInt(u64);
    const slice = &lane.tunables.preempt_slice_ns;
    const before = slice.get();
    defer slice.set(before);
    slice.set(ms);
    var watched: Lane = .{ .gpa = gpa };
    watched.sysmon.tick_since = 5 * ms;
    try std.testing.expectEqual(ms, sysmon.untilSliceEnd(&watched, 5 * ms));
    try std.testing.expectEqual(ms / 4, sysmon.untilSliceEnd(&watched, 5 * ms + 3 * ms / 4));
    try std.testing.expectEqual(never, sysmon.untilSliceEnd(&watched, 6 * ms));
    // Of a longer one that goes on.
    slice.set(3 * ms);
    try std.testing.expectEqual(2 * ms, sysmon.untilSliceEnd(&watched, 6 * ms));
    slice.set(ms);
    watched.sysmon.requests = 1;
    watched.sysmon.requested_at = 6 * ms;
    try std.testing.expectEqual(ms, sysmon.untilSliceEnd(&watched, 6 * ms));
    watched.options.preempt_async = false;
    try std.testing.expectEqual(never, sysmon.untilSliceEnd(&watched, 6 * ms));
}

test "a hog's turn begins when it began, but not after sysmon's look" {
    var watched: Lane = .{ .gpa = gpa };
    var m: M = .{};
    watched.owner = .init(&m);
    watched.tick = .init(7);
    watched.hog_turn = .init(7);
    watched.hog_turn_at = .init(9);
    _ = sysmon.round(&watched, 8);
    try std.testing.expectEqual(8, watched.sysmon.tick_since);
    watched.tick = .init(8);
    watched.hog_turn = .init(8);
    _ = sysmon.round(&watched, 12);
    try std.testing.expectEqual(9, watched.sysmon.tick_since);
    try std.testing.expectEqual(0, watched.sysmon.requests);
    watched.tick = .init(9);
    _ = sysmon.round(&watched, 15);
    try std.testing.expectEqual(15, watched.sysmon.tick_since);
}

test "what sysmon saw of another slice says nothing of this one" {
    var watched: Lane = .{ .gpa = gpa };
    watched.sysmon.tick = 7;
    watched.sysmon.tick_since = 5;
    watched.tick = .init(7);
    try std.testing.expectEqual(3, sysmon.hasRun(&watched, 8));
    watched.tick = .init(8);
    try std.testing.expectEqual(0, sysmon.hasRun(&watched, 8));
}

test "goroutines that pass by without the P hurry sysmon only where others want it" {
    const us = std.time.ns_per_us;
    const S = struct {
        fn nothing(_: *T) void {}
    };
    var passing: T = .{ .function = S.nothing, .inside = .init(true) };
    var owning: T = .{ .function = S.nothing };
    var owner: M = .{ .state = .init(&owning) };
    var lost: M = .{ .state = .init(&passing), .lost = .init(true) };
    var watched: Lane = .{ .gpa = gpa, .all_m = &lost, .owner = .init(&owner) };
    // The owner's goroutine blocks, too: it is asked to queue up only after a millisecond.
    for ([_]u64{ 100, 200, 1000, 1100 }, [_]u32{ 1, 1, 1, 2 }) |at, seen| {
        try std.testing.expect(!sysmon.watchLost(&watched, at * us));
        try std.testing.expectEqual(seen, lost.seen_attached);
    }
    passing.inside.store(false, .monotonic);
    try std.testing.expect(!sysmon.watchLost(&watched, 1200 * us));
    passing.inside.store(true, .monotonic);
    owning.inside.store(true, .monotonic);
    for ([_]u64{ 1300, 1320 }, [_]u32{ 1, 2 }) |at, seen| {
        try std.testing.expect(sysmon.watchLost(&watched, at * us));
        try std.testing.expectEqual(seen, lost.seen_attached);
    }
    watched.owner = .init(null);
    try std.testing.expect(!sysmon.watchLost(&watched, 1340 * us));
}

test "a locked goroutine stays on its thread, and no other runs there" {
    const S = struct {
        const rounds = 200;
        var c: Chan = .{};
        var locked: [3]T = undefined;
        var others: [3]T = undefined;
        var mine: [locked.len]std.atomic.Value(?*M) = @splat(.init(null));
        var strays: u32 = 0;
        var ended: u32 = 0;

        fn turn(t: *T, i: u64) void {
            switch (i % 4) {
                0 => blockFor(t, 20 * std.time.ns_per_us),
                1 => lane.gosched(&T.current().g),
                2 => send(&c, i),
                else => _ = recv(&c),
            }
            _ = T.current();
        }
        fn keep(t: *T) void {
            lane.lockThread(&t.g) catch unreachable;
            const m = m_mod.current().?;
            if (m.main) strays += 1;
            mine[t.value].store(m, .monotonic);
            for (0..rounds) |i| {
                turn(t, i + t.value);
                if (m_mod.current() != m) strays += 1;
            }
            mine[t.value].store(null, .monotonic);
            // Every other one ends locked.
            if (t.value % 2 == 0) _ = lane.unlockThread(&t.g);
            ended += 1;
        }
        fn wander(t: *T) void {
            for (0..rounds) |i| {
                turn(t, i + t.value);
                for (&mine) |*each| {
                    if (each.load(.monotonic) == m_mod.current()) strays += 1;
                }
            }
            ended += 1;
        }
        fn main(t: *T) void {
            for (&locked, &others, 0..) |*l, *o, i| {
                l.* = .{ .function = keep, .value = i };
                o.* = .{ .function = wander, .value = i };
                lane.go(&l.g);
                lane.go(&o.g);
            }
            // They need not be as many senders as receivers at the end.
            while (ended < locked.len + others.len) {
                var out: u64 = undefined;
                var zero: u64 = 0;
                if (c.now(.recv, &out) != .done) _ = c.now(.send, &zero);
                lane.prepare(&t.g);
                _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
            }
            std.testing.expectEqual(0, lane.locked_count) catch unreachable;
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(0, S.strays);
}

test "a goroutine that keeps its thread comes back to it, and no other uses it meanwhile" {
    const S = struct {
        const rounds = 300;
        var c: Chan = .{};
        var kept: [4]T = undefined;
        var others: [4]T = undefined;
        var mine: [kept.len]std.atomic.Value(?*M) = @splat(.init(null));
        var strays: usize = 0;
        var ended: usize = 0;

        fn turn(t: *T, i: usize) void {
            switch (i % 4) {
                0 => lane.gosched(&t.g),
                1 => lane.preempt(&t.g),
                2 => {
                    lane.prepare(&t.g);
                    _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
                },
                else => {
                    var out: u64 = undefined;
                    var zero: u64 = 0;
                    if (c.now(.recv, &out) != .done) _ = c.now(.send, &zero);
                },
            }
        }
        fn keep(t: *T) void {
            for (0..rounds) |i| {
                if (lane.here() != &t.g) unreachable;
                const m = m_mod.current().?;
                t.keeps_thread = true;
                mine[t.value].store(m, .monotonic);
                turn(t, i + t.value);
                if (m_mod.current() != m) strays += 1;
                mine[t.value].store(null, .monotonic);
                t.keeps_thread = false;
                if (i % 7 == 0) lane.gosched(&t.g);
            }
            ended += 1;
        }
        fn wander(t: *T) void {
            for (0..rounds) |i| {
                turn(t, i + t.value);
                for (&mine) |*each| {
                    if (each.load(.monotonic) == m_mod.current()) strays += 1;
                }
            }
            ended += 1;
        }
        fn main(t: *T) void {
            for (&kept, &others, 0..) |*k, *o, i| {
                k.* = .{ .function = keep, .value = i };
                o.* = .{ .function = wander, .value = i };
                lane.go(&k.g);
                lane.go(&o.g);
            }
            while (ended < kept.len + others.len) {
                lane.prepare(&t.g);
                _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
            }
            if (lane.counters.threads_kept == 0) unreachable;
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual(0, S.strays);
}

test "a preemption counts, whichever way the processor goes on" {
    const S = struct {
        var locked: T = undefined;
        var c: Chan = .{};
        var received: usize = 0;
        var counted: [2]u64 = undefined;

        fn other(_: *T) void {}
        fn keep(t: *T) void {
            lane.lockThread(&t.g) catch unreachable;
            _ = recv(&c);
            received += 1;
        }
        fn main(t: *T) void {
            var o: T = .{ .function = other };
            lane.go(&o.g);
            lane.preempt(&t.g);
            counted[0] = lane.counters.preemptions;
            locked = .{ .function = keep };
            lane.go(&locked.g);
            while (locked.g.status != .waiting) lane.gosched(&t.g);
            send(&c, 1);
            // The next one has a thread of its own, to which only g0 can pass the processor.
            lane.preempt(&t.g);
            counted[1] = lane.counters.preemptions;
            while (received == 0) lane.gosched(&t.g);
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectEqual([2]u64{ 1, 2 }, S.counted);
}

test "without a thread for the others a goroutine goes on anywhere" {
    const S = struct {
        var ended: usize = 0;

        fn keep(t: *T) void {
            if (lane.here() != &t.g) unreachable;
            t.keeps_thread = true;
            lane.gosched(&t.g);
            lane.prepare(&t.g);
            _ = lane.park(&t.g, .sleep, os.nanotime() + std.time.ns_per_ms);
            ended += 1;
        }
        fn main(t: *T) void {
            lane.options.max_threads = 2;
            var kept: [4]T = undefined;
            for (&kept) |*k| {
                k.* = .{ .function = keep };
                lane.go(&k.g);
            }
            while (ended < kept.len) {
                lane.prepare(&t.g);
                _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
            }
            if (lane.counters.threads_not_kept == 0) unreachable;
            if (lane.counters.threads.load(.monotonic) > 2) unreachable;
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
}

test "a run ends while a locked goroutine waits, and another one begins" {
    const S = struct {
        var c: Chan = .{};
        var locked: T = undefined;

        fn keep(t: *T) void {
            lane.lockThread(&t.g) catch unreachable;
            _ = recv(&c);
        }
        fn main(t: *T) void {
            locked = .{ .function = keep };
            lane.go(&locked.g);
            while (locked.g.status != .waiting) lane.gosched(&t.g);
        }
        fn again(t: *T) void {
            lane.lockThread(&t.g) catch unreachable;
            if (!m_mod.current().?.main) unreachable;
            lane.gosched(&t.g);
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    var second: T = .{ .function = S.again };
    try runMain(&second);
}

test "locking needs a thread for the others" {
    const S = struct {
        var result: Lane.Error!void = {};

        fn main(t: *T) void {
            lane.options.max_threads = 1;
            result = lane.lockThread(&t.g);
            lane.options.max_threads = 2;
            lane.lockThread(&t.g) catch unreachable;
            if (lane.unlockThread(&t.g) != true or lane.unlockThread(&t.g) != false) unreachable;
        }
    };
    var main: T = .{ .function = S.main };
    try runMain(&main);
    try std.testing.expectError(error.ThreadLimit, S.result);
}
