//! The cases of select() on a native.Chan: its other side runs without the interpreter's lock.
//!
//! While a select looks at its cases and queues on them it holds the locks of all its native
//! channels, taken in the order of their addresses as sync/select.zig says. From then on two
//! parties may end it: a goroutine of the native lane, under the lock of one channel, and code with
//! the interpreter's lock, by a value, a close, the time or a cancellation. All of them have to
//! change one word from 0 to 1 first (`Wait.claimed`, which `Lane.contest` makes the lane's claims
//! compete for), and a loser passes by, so that exactly one case happens. A native winner posts the
//! entry. Its arrival makes the goroutine ready. The goroutine continues only when the winner is
//! done with it: after an arrival, or after a claim under the lock it runs with.
const std = @import("std");
const g_mod = @import("../../serial/g.zig");
const inbox = @import("../../serial/inbox.zig");
const chan_mod = @import("../../sync/chan.zig");
const switching = @import("../../parallel/lane.zig").switching;
const chans = @import("../../capi/chan.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const native_chan = @import("native_chan.zig");
const outside = @import("../host/outside.zig");
const select = @import("select.zig");
const standin = @import("../host/standin.zig");

const lane = &host.the_lane;
const C = chans.Chan;
const G = g_mod.G;
const Outcome = chan_mod.Outcome;

/// One case; elements of a few bytes lie here.
const State = struct {
    shared: *Shared,
    case: C.Case,
    chan: *native_chan.Chan,
    /// What is sent, in the Case, or where the received goes.
    elem: []u8,
    small: [16]u8 align(16) = undefined,
    index: u32,
    /// By the address of the channel.
    next: ?*State = null,
};

/// What the native cases of one select have in common.
const Shared = struct {
    sources: [*]select.Source,
    first: ?*State = null,
    caller: outside.Caller = undefined,
    /// The wait to wake once the locks are released.
    woken: ?*switching.Wait = null,
    wait: switching.Wait = .{},
    entry: inbox.Entry = .{ .arrive = arrive },
    g: *G = undefined,
    generation: u32 = 0,

    fn hold(s: *Shared) void {
        s.caller = .enter();
        var last: ?*C = null;
        var it = s.first;
        while (it) |state| : (it = state.next) {
            if (state.chan.c != last) state.chan.c.lock.lock();
            last = state.chan.c;
        }
    }

    fn release(s: *Shared) void {
        var last: ?*C = null;
        var it = s.first;
        while (it) |state| : (it = state.next) {
            if (state.chan.c != last) state.chan.c.lock.unlock();
            last = state.chan.c;
        }
        if (s.woken) |other| switching.Rt.wake(other);
        s.woken = null;
        s.caller.leave();
    }

    fn enlist(s: *Shared, g: *G) void {
        s.wait = .{ .contested = true, .wake = wake };
        s.g = g;
        s.generation = lane.generation;
        lane.contest(g, &s.wait.claimed);
        lane.outside_waiters += @intFromBool(!g.system);
        if (g.thread != null) standin.expect(g, &s.entry);
    }

    fn wake(w: *switching.Wait) void {
        const s: *Shared = @alignCast(@fieldParentPtr("wait", w));
        // A thread has its entry arrive by itself.
        if (s.g.thread) |note| note.wake() else lane.post(&s.entry);
    }

    fn arrive(e: *inbox.Entry) void {
        const s: *Shared = @alignCast(@fieldParentPtr("entry", e));
        // What a run has left behind does not go on in another, but for threads.
        if (s.g.thread == null and (!lane.live or s.generation != lane.generation)) return;
        const waiter: *C.Waiter = @ptrCast(@alignCast(s.wait.fired.?));
        const case: *C.Case = @alignCast(@fieldParentPtr("waiter", waiter));
        const fired: *State = @alignCast(@fieldParentPtr("case", case));
        lane.arrive(
            s.g,
            if (s.wait.outcome == .closed) .closed else .ready,
            &s.sources[fired.index],
        );
    }
};

/// Of a select: sync/select.zig says what for. Most have no native case.
pub const Guard = struct {
    sources: [*]select.Source,
    /// How many timers its cases may put into the heap.
    timers: usize = 0,
    shared: ?*Shared = null,
    /// As of the G while it waits.
    waiting_on: ?*anyopaque = null,
    waiting_count: u32 = 0,

    /// What dumps show: an object, or an array of `count` cases.
    pub inline fn waitsOn(g: *Guard, on: *const anyopaque, count: u32) void {
        g.waiting_on = @constCast(on);
        g.waiting_count = count;
    }

    /// Null with an exception set.
    pub fn add(g: *Guard, case: *select.Case, index: usize) ?*State {
        if (g.shared == null) {
            const made = host.gpa.create(Shared) catch return noMemory();
            made.* = .{ .sources = g.sources };
            g.shared = made;
        }
        const shared = g.shared.?;
        const ch: *native_chan.Chan = @ptrCast(case.owner);
        const state = host.gpa.create(State) catch return noMemory();
        state.* = .{
            .shared = shared,
            .case = .{
                .chan = ch.c,
                .side = if (case.kind == .native_send) .send else .recv,
                .elem = undefined,
            },
            .chan = ch,
            .elem = undefined,
            .index = @intCast(index),
        };
        const size = ch.c.elem_size;
        if (state.case.side == .send) {
            state.elem = py.PyBytes_AsString(case.value.?).?[0..size];
        } else if (size <= state.small.len) {
            state.elem = state.small[0..size];
        } else state.elem = host.gpa.alloc(u8, size) catch {
            host.gpa.destroy(state);
            return noMemory();
        };
        state.case.elem = state.elem.ptr;
        var place = &shared.first;
        while (place.*) |other| : (place = &other.next) {
            if (@intFromPtr(other.chan.c) >= @intFromPtr(ch.c)) break;
        }
        state.next = place.*;
        place.* = state;
        return state;
    }

    fn noMemory() ?*State {
        _ = py.PyErr_NoMemory();
        return null;
    }

    pub inline fn deinit(g: *Guard) void {
        if (g.shared != null) g.free();
    }

    noinline fn free(g: *Guard) void {
        const shared = g.shared.?;
        var it = shared.first;
        while (it) |state| {
            it = state.next;
            const owned = state.case.side == .recv and state.elem.len > state.small.len;
            if (owned) host.gpa.free(state.elem);
            host.gpa.destroy(state);
        }
        host.gpa.destroy(shared);
    }

    pub inline fn hold(g: *Guard) void {
        if (g.shared) |s| s.hold();
    }

    pub inline fn release(g: *Guard) void {
        if (g.shared) |s| s.release();
    }

    pub inline fn unlocker(_: *const Guard) *const fn (*anyopaque) bool {
        return unlock;
    }

    fn unlock(raw: *anyopaque) bool {
        const g: *Guard = @ptrCast(@alignCast(raw));
        g.release();
        return true;
    }

    pub inline fn reserve(g: *Guard) bool {
        if (g.timers == 0) return true;
        lane.timers.reserve(host.gpa, g.timers) catch return false;
        return true;
    }

    pub inline fn enlist(g: *Guard, by: *G) void {
        by.waiting_on = g.waiting_on;
        by.waiting_count = g.waiting_count;
        if (g.shared) |s| s.enlist(by);
    }

    pub fn isInterrupted(_: *const Guard, by: *G) bool {
        return goroutine.isToRaise(goroutine.of(by));
    }

    pub inline fn resign(g: *Guard, by: *G) void {
        by.waiting_count = 0;
        if (g.shared != null) lane.outside_waiters -= @intFromBool(!by.system);
    }
};

/// With the locks, but for `dequeue`.
pub const Source = struct {
    state: *State,

    pub fn poll(source: *Source, _: *Guard) Outcome {
        return source.state.case.poll(source.state.shared);
    }

    pub fn enqueue(source: *Source, _: *G) void {
        source.state.case.enqueue(&source.state.shared.wait);
    }

    pub fn dequeue(source: *Source) void {
        const caller: outside.Caller = .enter();
        defer caller.leave();
        source.state.case.dequeue();
    }

    pub fn finish(source: *Source, wake: g_mod.Wake) Outcome {
        return source.state.case.finish(wake);
    }

    pub fn result(source: *Source, outcome: Outcome, index: usize) ?*py.Object {
        const s = source.state;
        if (s.case.side == .send)
            return if (outcome == .closed) select.sentOnClosed(index) else py.returnNone();
        return if (outcome == .closed) py.returnNone() else native_chan.decode(s.chan, s.elem);
    }
};
