//! Events for plugins: what happened, when, to which goroutine.
//!
//! A ring has one producer, the thread that holds the ring's P, and one consumer, the pump. A ring
//! is bounded; an event that finds it full is dropped and counted. To record an event costs a
//! reading of the processor's counter (os/counter.zig) and a few stores. While no plugin wants its
//! kind, it costs only the test of a bit in a mask.
//!
//! The pump takes the events of several rings in the order of their times (merge.zig). What is
//! `writing` tells it: an event may have its time already and not be in the ring yet.
const std = @import("std");
const Real = @import("../os/env.zig").Real;

/// In the order of the hooks in golibx/hookspec.py.
pub const Kind = enum(u8) {
    /// a = the goroutine that started it, 0 for none.
    goroutine_create,
    /// a = the goroutine that started it, 0 if that is none or not known.
    goroutine_start,
    /// b = why it waits, a WaitReason.
    goroutine_park,
    /// a = the goroutine that woke it, 0 for none.
    goroutine_ready,
    /// a = lifetime in ns; b = 0 returned, 1 raised, 2 cancelled.
    goroutine_exit,
    goroutine_panic,
    /// a = how long it had run, ns; b = 0 it stopped by itself, 1 by taking its processor.
    preempt,
    /// a = how long it had been blocked, ns; b = 1 if it came back first.
    retake,
    /// a = file descriptor; b = 1 readable, 2 writable, 3 both.
    netpoll_ready,
    /// The goroutine is the one that the thief runs; a = thief's P << 32 | victim's P; b = how
    /// many.
    steal,
    /// a = how long sysmon had slept, ns; b = rounds without an event before this one.
    sysmon_tick,
    /// a = how many goroutines are asleep.
    deadlock,
    /// a = processors before, b = after.
    gomaxprocs,
    /// a = which of the changes that are kept beside the ring.
    tune,
    /// a = how long it had waited for its turn, ns.
    goroutine_run,
    /// a = how long it had been blocked, ns; b = which of the places that are kept beside the ring,
    /// 0 for none.
    goroutine_block,
    /// Both: how long it was blocked, and how long it then waited for its turn. See `Two`.
    goroutine_unblock,
    /// a = how long the lane waited for the host's lock, ns; b = 1 if it had offered that.
    gil_wait,

    pub inline fn bit(k: Kind) u32 {
        return @as(u32, 1) << @intCast(@backingInt(k));
    }
};

/// Beside the kinds in a mask: golibx measures how long goroutines wait for their turn. There are
/// no events of that. See serial/latency.zig.
pub const latency_bit: u32 = 1 << 31;
/// The bits that need the time at which a goroutine began to wait for its turn.
const timing_bits = latency_bit | Kind.goroutine_run.bit();

/// Two durations in nanoseconds, each of 78 hours at most, as an event's `a` and `b`.
pub const Two = struct {
    a: u64,
    b: u32,

    const most = (1 << 48) - 1;

    pub fn of(first: u64, second: u64) Two {
        const low: u64 = @min(first, most);
        const other: u64 = @min(second, most);
        return .{ .a = low | other >> 32 << 48, .b = @truncate(other) };
    }
};

/// The lane of the goroutine that an event is about: each lane numbers its own.
pub const Origin = enum(u8) { python, native };

/// Also a record of what golibx/eventbatch.py reads: there the time is in nanoseconds of the
/// monotonic clock, and of kinds that have an object `b` is that object's place in a list.
pub const Event = extern struct {
    /// In a ring as the counter has it.
    time: u64,
    goroutine: u64,
    a: u64,
    b: u32,
    kind: Kind,
    /// Set when it is taken out.
    origin: Origin = .python,
    unused: u16 = 0,
};

comptime {
    std.debug.assert(@sizeOf(Event) == 32);
}

/// What `pushLocked` has done with an event.
pub const Pushed = enum {
    dropped,
    /// The consumer has taken all that came before.
    first,
    next,
};

pub const Ring = RingOf(Real);

/// `Env` is what the ring takes from the machine.
pub fn RingOf(comptime Env: type) type {
    return struct {
        events: []Event = &.{},
        /// Next to write; only the producer stores it.
        head: Env.Atomic(usize) = .init(0),
        /// Next to read; only the consumer stores it.
        tail: Env.Atomic(usize) = .init(0),
        /// 1 while the producer writes an event. The event's time may be any since then.
        writing: Env.Atomic(u32) = .init(0),
        /// The kinds that are wanted, for rings that have a mask of their own. Any thread may read
        /// it. Where a goroutine is made ready, the bit of that kind says whether waits for a turn
        /// are timed: it is set for either.
        mask: u32 = 0,
        /// What the mask was made of.
        wanted: u32 = 0,
        /// Written by the producer only, read by any thread.
        dropped: u64 = 0,
        /// Its producer and consumer hold one lock in turn: see `pushLocked`.
        locked: bool = false,

        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// `size` is a power of two.
        pub fn init(gpa: std.mem.Allocator, size: usize) !Self {
            std.debug.assert(std.math.isPowerOfTwo(size));
            return .{ .events = try gpa.alloc(Event, size) };
        }

        pub fn deinit(r: *Self, gpa: std.mem.Allocator) void {
            gpa.free(r.events);
            r.* = .{};
        }

        pub inline fn wants(r: *const Self, kind: Kind) bool {
            return @atomicLoad(u32, &r.mask, .monotonic) & kind.bit() != 0;
        }

        /// Whether waits for a turn are timed.
        pub inline fn times(r: *const Self) bool {
            return @atomicLoad(u32, &r.mask, .monotonic) & timing_bits != 0;
        }

        /// Whether some of them are counted by their length.
        pub fn measures(r: *const Self) bool {
            return @atomicLoad(u32, &r.mask, .monotonic) & latency_bit != 0;
        }

        /// Where a goroutine is made ready, and the mask has its bit: whether an event is wanted.
        pub fn recordsReady(r: *const Self) bool {
            return @atomicLoad(u32, &r.wanted, .monotonic) & Kind.goroutine_ready.bit() != 0;
        }

        pub fn setMask(r: *Self, wanted: u32) void {
            const either = if (wanted & timing_bits != 0) Kind.goroutine_ready.bit() else 0;
            @atomicStore(u32, &r.wanted, wanted, .monotonic);
            @atomicStore(u32, &r.mask, wanted | either, .monotonic);
        }

        /// Returns whether the consumer has taken all that came before, so that it may sleep, and
        /// has to be told. To see that for certain takes a barrier on either side: here the new
        /// head is stored, then `tail` read; in `popUntil` the new tail is stored, then `head`
        /// read.
        pub fn push(r: *Self, kind: Kind, goroutine: u64, a: u64, b: u32) bool {
            const head = r.head.load(.monotonic);
            // Acquire pairs with the consumer's release in `popUntil`: the slot may be written.
            const tail = r.tail.load(.acquire);
            if (planted != .never_full and head - tail == r.events.len) {
                @atomicStore(u64, &r.dropped, r.dropped + 1, .monotonic);
                return false;
            }
            const early = if (planted == .clock_before_writing) Env.ticksInOrder() else 0;
            // A barrier before the clock is read: see `isSettled`.
            r.writing.store(1, .seq_cst);
            const slot = &r.events[head & (r.events.len - 1)];
            if (planted == .head_before_slot) r.head.store(head + 1, .release);
            Env.writes(slot);
            slot.* = .{
                .time = if (planted == .clock_before_writing) early else Env.ticksInOrder(),
                .goroutine = goroutine,
                .a = a,
                .b = b,
                .kind = kind,
            };
            // Pairs with the load in `popUntil`.
            r.head.store(head + 1, switch (planted) {
                .head_relaxed => .monotonic,
                .tail_read_before => .release,
                else => .seq_cst,
            });
            r.writing.store(0, .release); // pairs with the load in `isSettled`
            return head == if (planted == .tail_read_before) tail else r.tail.load(.seq_cst);
        }

        /// As `push`, of a ring with a producer and a consumer that hold one lock in turn. The lock
        /// orders them, and no event is half written where the consumer looks. `time` is what the
        /// counter says.
        pub inline fn pushLocked(
            r: *Self,
            time: u64,
            kind: Kind,
            goroutine: u64,
            a: u64,
            b: u32,
        ) Pushed {
            std.debug.assert(r.locked);
            const head = r.head.load(.monotonic);
            const tail = r.tail.load(.monotonic);
            if (head - tail == r.events.len) {
                @atomicStore(u64, &r.dropped, r.dropped + 1, .monotonic);
                return .dropped;
            }
            const slot = &r.events[head & (r.events.len - 1)];
            Env.writes(slot);
            slot.* = .{
                .time = time,
                .goroutine = goroutine,
                .a = a,
                .b = b,
                .kind = kind,
            };
            r.head.store(head + 1, .monotonic);
            return if (head == tail) .first else .next;
        }

        /// The consumer's: whether all events with a time before now are in the ring. If `writing`
        /// is not set here, the next event's clock is read after this look; if it was cleared
        /// before, the event is visible.
        pub fn isSettled(r: *Self) bool {
            return r.writing.fetchAdd(0, .seq_cst) == 0;
        }

        /// The consumer's: when the next event happened, if there is one.
        pub fn nextTime(r: *const Self) ?u64 {
            const tail = r.tail.load(.monotonic);
            if (r.head.load(.seq_cst) == tail) return null; // pairs with the store in `push`
            const slot = &r.events[tail & (r.events.len - 1)];
            Env.reads(slot);
            return slot.time;
        }

        pub fn pop(r: *Self) ?Event {
            var e: [1]Event = undefined;
            return if (r.popUntil(std.math.maxInt(u64), &e) == 1) e[0] else null;
        }

        /// The consumer's: the events that happened up to `limit`, as many as `out` has room for.
        pub fn popUntil(r: *Self, limit: u64, out: []Event) usize {
            const tail = r.tail.load(.monotonic);
            const most = @min(r.head.load(.seq_cst) - tail, out.len); // pairs with that in `push`
            var n: usize = 0;
            while (n < most) : (n += 1) {
                const slot = &r.events[(tail + n) & (r.events.len - 1)];
                Env.reads(slot);
                if (slot.time > limit) break;
                out[n] = slot.*;
            }
            if (n > 0) {
                if (r.locked)
                    r.tail.store(tail + n, .monotonic)
                else
                    r.tail.store(tail + n, .seq_cst); // pairs with the loads in `push`
            }
            return n;
        }

        /// The producer's.
        pub inline fn isHalfFull(r: *const Self) bool {
            return r.len() >= r.events.len / 2;
        }

        pub inline fn len(r: *const Self) usize {
            return r.head.load(.monotonic) - r.tail.load(.monotonic);
        }
    };
}

test "two durations" {
    const short: Two = .of(5, 7);
    try std.testing.expectEqual(Two{ .a = 5, .b = 7 }, short);
    const hour = std.time.ns_per_hour;
    const long: Two = .of(2 * hour, 3 * hour);
    try std.testing.expectEqual(2 * hour, long.a & Two.most);
    try std.testing.expectEqual(3 * hour, long.a >> 48 << 32 | long.b);
    const endless: Two = .of(std.math.maxInt(u64), std.math.maxInt(u64));
    try std.testing.expectEqual(std.math.maxInt(u64), endless.a);
    try std.testing.expectEqual(std.math.maxInt(u32), endless.b);
}

test "a full ring drops and counts" {
    var r = try Ring.init(std.testing.allocator, 4);
    defer r.deinit(std.testing.allocator);
    r.setMask(Kind.preempt.bit());
    try std.testing.expect(r.wants(.preempt) and !r.wants(.retake));
    try std.testing.expect(r.push(.preempt, 1, 0, 0));
    for (2..7) |i| _ = r.push(.preempt, i, 0, 0);
    try std.testing.expectEqual(2, r.dropped);
    for (1..5) |i| try std.testing.expectEqual(i, r.pop().?.goroutine);
    try std.testing.expectEqual(null, r.pop());
}
