//! Where goroutines park that wait for an object of the interpreter's own: a lock that is taken, a
//! queue that is empty.
//!
//! Such an object knows nothing of goroutines, and has no place for those that wait. They are in
//! queues that are found by the object's address. A goroutine that lets a lock go, or puts
//! something into a queue, wakes the first, which tries again; others may have been quicker, as in
//! Go's sync.Mutex, but once it has waited for a millisecond it is given the lock. Everything here
//! is under the interpreter's lock.
const std = @import("std");
const os = @import("../../os/os.zig");
const List = @import("../../core/list.zig").List;
const g_mod = @import("../../serial/g.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const replace = @import("replace.zig");
const timeouts = @import("../timeouts.zig");
const signals = @import("signals.zig");

const lane = &host.the_lane;

/// As Go's mutex: a goroutine that has waited for that long is next.
const patience_ns = std.time.ns_per_ms;

/// Lies on its goroutine's stack.
pub const Waiter = struct {
    on: *anyopaque,
    g: *g_mod.G,
    /// Its goroutine's, for locks that have an owner.
    ident: u64,
    since: u64,
    generation: u32,
    /// Takes it for the waiter, if that is possible.
    give: *const fn (*const Waiter) bool,
    given: bool = false,
    prev: ?*Waiter = null,
    next: ?*Waiter = null,
};

const Queue = List(Waiter);

var queues: [256]Queue = @splat(.{});
/// How many wait, in all queues.
pub var waiting: usize = 0;

fn queueOf(on: *anyopaque) *Queue {
    return &queues[(@intFromPtr(on) >> 4) % queues.len];
}

fn enqueue(w: *Waiter, in_front: bool) void {
    const q = queueOf(w.on);
    if (in_front) q.pushFront(w) else q.push(w);
    waiting += 1;
}

fn dequeue(w: *Waiter) void {
    queueOf(w.on).remove(w);
    waiting -= 1;
}

/// The object is free, or another was quicker, which then wakes the next; or one of those that wait
/// for it was woken, and does not try soon.
pub fn wakeNext(on: *anyopaque) void {
    var it = queueOf(on).head;
    while (it) |w| {
        it = w.next;
        if (w.on != on) continue;
        // What an ended run has left behind waits for ever.
        if (!lane.live or w.generation != lane.generation) continue;
        if (!lane.claim(w.g, .ready)) continue;
        if (os.nanotime() - w.since >= patience_ns and w.give(w)) w.given = true;
        lane.readyLast(w.g);
        return;
    }
}

/// As `wakeNext`, for a caller that has just called the original function, of whatever interpreter.
pub noinline fn wakeNextHere(on: *anyopaque) void {
    if (py.PyInterpreterState_Get() == host.interpreter) wakeNext(on);
}

inline fn anyWaits() bool {
    return waiting > 0;
}

/// A method that leaves its object to the next of those that wait for it, also where a thread calls
/// it.
pub fn Waking(comptime module: [:0]const u8, comptime path: [:0]const u8) type {
    return struct {
        pub const Replaced = replace.Replacement(module, path, anyWaits, call);

        fn call(c: replace.Call) ?*py.Object {
            const result = Replaced.callOriginal(c) orelse return null;
            wakeNextHere(c.self.?);
            return result;
        }
    };
}

/// For objects that can't be handed to a waiter: it has only been told.
pub fn giveNothing(_: *const Waiter) bool {
    return false;
}

/// In the child of a fork no goroutine waits.
pub fn forget() void {
    queues = @splat(.{});
    waiting = 0;
}

pub const Will = enum { may_raise, always };

/// In a goroutine: `o.tryTake(me)` until it is true. False when the time is up, null with an
/// exception set. `give(w)` is as `tryTake` for the waiter.
pub fn take(
    o: anytype,
    me: u64,
    limit: timeouts.Limit,
    will: Will,
    give: *const fn (*const Waiter) bool,
) ?bool {
    if (o.tryTake(me)) return true;
    if (limit == .poll) return false;
    const deadline = limit.deadline();
    var w: Waiter = .{
        .on = o,
        .g = undefined,
        .ident = me,
        .since = os.nanotime(),
        .generation = lane.generation,
        .give = give,
    };
    var again = false;
    while (true) : (again = true) {
        const g = lane.here() orelse {
            // Of an ended run: there is nothing that it could wait on.
            const state = py.PyEval_SaveThread();
            os.sleepNs(std.time.ns_per_ms);
            py.PyEval_RestoreThread(state.?);
            if (o.tryTake(me)) return true;
            if (deadline) |d| if (os.nanotime() >= d) return false;
            continue;
        };
        const p = goroutine.of(g);
        // Contexts are for what golibx itself waits for: code that locks for a moment, such as
        // logging and imports, has to work in a `finally` block under one that is done.
        const context = g.context;
        g.context = null;
        defer g.context = context;
        if (will == .may_raise and goroutine.raisePending(p)) return null;
        if (o.tryTake(me)) return true; // others may have run
        w.g = g;
        g.waiting_on = o;
        lane.prepare(g);
        enqueue(&w, again);
        const wake = lane.park(g, .lock, deadline);
        dequeue(&w);
        if (w.given or o.tryTake(me)) return true;
        switch (wake) {
            .ready, .closed => {},
            .timeout => return false,
            .interrupted => {
                // Else it was for a signal's handler.
                if (will == .may_raise and goroutine.raisePending(p)) return null;
                if (will == .always and p == goroutine.main) signals.goOn();
            },
        }
    }
}
