//! Events of the native lane, for the hooks of Python plugins.
//!
//! Each P has a ring, written by the M that holds the P; threads that hold none (sysmon, threads
//! outside, an M that comes from the poller) share one more, under a lock. The consumer is Python's
//! pump (zsrc/python/run/events.zig), told by `notify` when a ring was empty. Rings are made when a
//! run with a plugin that wants such events begins, so a program without Python has none, and they
//! stay until the lane stops, since an M may be writing one at any time.
//!
//! The lane outlives runs. What a run left in the rings is thrown away when the next one begins,
//! and the mask is 0 in between.
//!
//! Recording is done inside the runtime or on g0 only, where the handler of the preemption signal,
//! which records too, does not interrupt it.
const std = @import("std");
const os = @import("../os/os.zig");
const event = @import("../event/event.zig");
const env = @import("env.zig");
const lane = @import("lane.zig");

const P = lane.P;
const G = lane.G;
pub const Ring = event.RingOf(lane.Env);
pub const Kind = event.Kind;

/// The kinds that the native lane records.
pub const kinds = blk: {
    var bits: u32 = 0;
    for ([_]Kind{
        .goroutine_create, .goroutine_start, .goroutine_park, .goroutine_ready, .goroutine_exit,
        .preempt,          .retake,          .netpoll_ready,  .steal,           .sysmon_tick,
        .gomaxprocs,
    }) |kind| bits |= kind.bit();
    break :blk bits;
};

/// The rings of all Ps, and the shared one.
pub const most_rings = lane.most_procs + 1;

pub const Options = struct {
    mask: u32,
    /// A power of two.
    ring_size: usize,
    /// There is something in a ring that was empty. Any thread calls it, also a signal handler.
    notify: *const fn () void,
};

var mask: u32 = 0;
/// Not 0 from the first time on that events were wanted. Under `lane.procs_lock`, as are the rings'
/// beginning and end, and their consumer.
var ring_size: usize = 0;
var notify: std.atomic.Value(?*const fn () void) = .init(null);
var shared: std.atomic.Value(?*Ring) = .init(null);
var shared_lock: env.SpinLock = .{};
/// Events that there was no ring for.
var lost: std.atomic.Value(u64) = .init(0);
/// When the present run's events began. Goroutines noted before are of another.
var began_ns: std.atomic.Value(u64) = .init(0);
/// Of rings that are gone, and of all runs before.
var recorded_gone: u64 = 0;
var recorded_before: u64 = 0;
var dropped_before: u64 = 0;

pub inline fn wants(kind: Kind) bool {
    return @atomicLoad(u32, &mask, .monotonic) & kind.bit() != 0;
}

pub inline fn wantsAny(comptime several: []const Kind) bool {
    comptime var bits: u32 = 0;
    inline for (several) |kind| bits |= comptime kind.bit();
    return @atomicLoad(u32, &mask, .monotonic) & bits != 0;
}

/// By the M that holds `p`.
pub inline fn record(p: *P, kind: Kind, goroutine: u64, a: u64, b: u32) void {
    if (wants(kind)) {
        @branchHint(.unlikely);
        push(p, kind, goroutine, a, b);
    }
}

/// For a thread that holds no P, or may hold none.
pub inline fn recordShared(kind: Kind, goroutine: u64, a: u64, b: u32) void {
    if (wants(kind)) {
        @branchHint(.unlikely);
        pushShared(kind, goroutine, a, b);
    }
}

noinline fn push(p: *P, kind: Kind, goroutine: u64, a: u64, b: u32) void {
    // Acquire pairs with the release in `prepare`.
    const ring = p.ring.load(.acquire) orelse return lose();
    if (ring.push(kind, goroutine, a, b)) tell();
}

noinline fn pushShared(kind: Kind, goroutine: u64, a: u64, b: u32) void {
    const ring = shared.load(.acquire) orelse return lose();
    shared_lock.lock();
    const first = ring.push(kind, goroutine, a, b);
    shared_lock.unlock();
    if (first) tell();
}

fn tell() void {
    if (notify.load(.acquire)) |f| f();
}

fn lose() void {
    _ = lost.fetchAdd(1, .monotonic);
}

// ---- what events say of a goroutine's life ----

/// Before it is made runnable. `by` is the goroutine that starts it, or 0; `p` is null without one.
pub inline fn created(p: ?*P, g: *G, by: u64) void {
    if (wantsAny(&.{ .goroutine_create, .goroutine_start })) {
        @branchHint(.unlikely);
        noteCreated(p, g, by);
    }
}

noinline fn noteCreated(p: ?*P, g: *G, by: u64) void {
    g.noted_id = g.id;
    g.parent = by;
    g.started_ns = 0;
    if (!wants(.goroutine_create)) return;
    if (p) |own|
        push(own, .goroutine_create, g.id, by, 0)
    else
        pushShared(.goroutine_create, g.id, by, 0);
}

/// By the goroutine itself, before its function.
pub inline fn started(g: *G) void {
    if (wantsAny(&.{ .goroutine_start, .goroutine_exit })) {
        @branchHint(.unlikely);
        noteStarted(g);
    }
}

noinline fn noteStarted(g: *G) void {
    if (g.noted_id != g.id) {
        g.noted_id = g.id;
        g.parent = 0;
    }
    g.started_ns = lane.Env.nanotime();
    record(g.m.?.p.?, .goroutine_start, g.id, g.parent, 0);
}

/// By the goroutine itself, after its function. Reported is one that the same run saw start.
pub inline fn ended(p: *P, g: *G) void {
    if (wants(.goroutine_exit)) {
        @branchHint(.unlikely);
        noteEnded(p, g);
    }
}

noinline fn noteEnded(p: *P, g: *G) void {
    if (g.noted_id != g.id or g.started_ns < @max(1, began_ns.load(.monotonic))) return;
    push(p, .goroutine_exit, g.id, lane.Env.nanotime() - g.started_ns, 0);
}

/// By the M that holds `p`, before it gives `g` away.
pub inline fn preempted(p: *P, g: *G, with_thread: bool) void {
    if (wants(.preempt)) {
        @branchHint(.unlikely);
        push(
            p,
            .preempt,
            g.id,
            lane.Env.nanotime() -| p.preempt_since.load(.monotonic),
            @intFromBool(with_thread),
        );
    }
}

// ---- rings ----

/// From here on events of these kinds are recorded. The consumer's, with nothing being consumed.
pub fn begin(o: Options) void {
    const wanted = o.mask & kinds;
    if (wanted == 0) return;
    lane.procs_lock.lock();
    defer lane.procs_lock.unlock();
    if (ring_size == 0) ring_size = o.ring_size;
    if (shared.raw == null) shared.store(newRing(), .release);
    for (lane.sched.procs()) |p| prepare(p.?);
    // What came too late for the run before.
    var rings: Rings = .{};
    while (rings.next()) |ring| {
        while (ring.pop()) |_| {}
    }
    const now = figures();
    recorded_before += now.recorded;
    dropped_before += now.dropped;
    notify.store(o.notify, .release);
    began_ns.store(os.nanotime(), .monotonic);
    @atomicStore(u32, &mask, wanted, .release);
}

/// Kinds that are not wanted any more are left out.
pub fn setMask(wanted: u32) void {
    if (notify.load(.monotonic) != null) @atomicStore(u32, &mask, wanted & kinds, .monotonic);
}

pub fn end() void {
    @atomicStore(u32, &mask, 0, .monotonic);
    notify.store(null, .release);
}

/// In the child of a fork. What the rings hold is the parent's to deliver.
pub fn forget() void {
    end();
    shared_lock = .{};
    shared = .init(null);
    ring_size = 0;
    lost = .init(0);
    recorded_gone = 0;
    recorded_before = 0;
    dropped_before = 0;
}

/// With `lane.procs_lock`, for a P that no M has yet, or that has no ring.
pub fn prepare(p: *P) void {
    if (ring_size == 0 or p.ring.raw != null) return;
    p.ring.store(newRing(), .release);
}

/// With `lane.procs_lock`, of a P that no M has.
pub fn release(p: *P) void {
    const ring = p.ring.raw orelse return;
    p.ring.raw = null;
    _ = lost.fetchAdd(ring.len() + ring.dropped, .monotonic);
    recorded_gone += ring.head.raw - ring.len();
    ring.deinit(lane.gpa);
    lane.gpa.destroy(ring);
}

/// Null without memory: its events are lost, and counted.
fn newRing() ?*Ring {
    const ring = lane.gpa.create(Ring) catch return null;
    ring.* = Ring.init(lane.gpa, ring_size) catch {
        lane.gpa.destroy(ring);
        return null;
    };
    return ring;
}

/// All rings there are, for their consumer. With `lane.procs_lock`, as long as they are used.
pub const Rings = struct {
    at: usize = 0,

    pub fn next(r: *Rings) ?*Ring {
        const procs = lane.sched.procs();
        while (r.at < procs.len) {
            defer r.at += 1;
            if (procs[r.at].?.ring.load(.acquire)) |ring| return ring;
        }
        if (r.at > procs.len) return null;
        r.at += 1;
        return shared.load(.acquire);
    }
};

pub const Figures = struct { recorded: u64 = 0, dropped: u64 = 0 };

/// Of this run, or the last one.
pub fn counted() Figures {
    lane.procs_lock.lock();
    defer lane.procs_lock.unlock();
    return figures();
}

fn figures() Figures {
    var sum: Figures = .{ .recorded = recorded_gone, .dropped = lost.load(.monotonic) };
    var rings: Rings = .{};
    while (rings.next()) |ring| {
        sum.recorded += ring.head.load(.monotonic);
        sum.dropped += @atomicLoad(u64, &ring.dropped, .monotonic);
    }
    return .{ .recorded = sum.recorded - recorded_before, .dropped = sum.dropped - dropped_before };
}
