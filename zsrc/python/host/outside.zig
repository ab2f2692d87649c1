//! How Python code waits for native code: goroutines of the Python lane park, threads block without
//! the interpreter's lock.
//!
//! A wait on a native object (parallel/wait.zig) is decided there, by the first `claim`: of a
//! native goroutine that serves it, a time-out, or a cancellation. A goroutine's park is decided by
//! its lane, under the interpreter's lock. The two meet here. The goroutine that serves the wait
//! claims it and posts the entry to the lane (serial/inbox.zig). The arrival of the entry claims
//! the park. When the park ended otherwise, the goroutine claims the wait itself; if another has
//! been quicker, a value was given or taken, and the operation has succeeded after all. Either way
//! the wait lies on the stack of the goroutine, which stays until the entry has arrived: the thread
//! that posts it touches nothing of it afterwards.
//!
//! Python code may run on a native goroutine too, called back by C code. That is tied to its thread
//! while it waits here, because the thread state is the thread's, and its processor is free for
//! others.
const std = @import("std");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const inbox = @import("../../serial/inbox.zig");
const native = @import("../../parallel/lane.zig");
const switching = native.switching;
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const standin = @import("standin.zig");

const lane = &host.the_lane;

/// While the caller, if it is a native goroutine, is inside the runtime.
pub const Caller = struct {
    g: ?*native.G,

    pub inline fn enter() Caller {
        return .{ .g = switching.enter() };
    }

    /// Without giving way: the goroutine may have been called back by C code, and its thread state
    /// is the thread's. What was asked of it meanwhile, the next call of C code's own obeys.
    pub inline fn leave(c: Caller) void {
        if (c.g) |g| _ = switching.letGo(g);
    }
};

/// How a wait ended.
pub const Ended = enum { served, closed, timeout, raised };

/// Python's signal handlers run on the main thread, but the kernel may give a signal to any other,
/// which ends no wait of that one's: it looks for itself this often.
const signals_looked_for_ns = 50 * std.time.ns_per_ms;

/// Sleeps without the interpreter's lock until `sleeper` has what it waits for, or until
/// `deadline`; `interrupted` when it is time to look for signals. `sleeper` has `sleep(timeout_ns)
/// os.Wake` and `happened() bool`; `handles_signals` is of the thread that Python's handlers run
/// on.
pub fn sleepOnce(sleeper: anytype, deadline: ?u64, handles_signals: bool) os.Wake {
    const never = std.math.maxInt(u64);
    const longest: u64 = if (handles_signals) signals_looked_for_ns else never;
    const thread: Detached = .leave();
    defer thread.comeBack();
    while (true) {
        const left: u64 = if (deadline) |when| when -| os.nanotime() else never;
        const limit = @min(left, longest);
        const woken = sleeper.sleep(if (limit == never) null else limit);
        if (sleeper.happened()) return .woken;
        if (woken == .interrupted) return .interrupted;
        if (deadline != null and os.nanotime() >= deadline.?) return .timeout;
        if (handles_signals and woken == .timeout) return .interrupted;
    }
}

/// As sleepOnce, and runs the handlers of signals meanwhile. `raised` with an exception set, of one
/// of these.
pub fn sleepDetached(sleeper: anytype, deadline: ?u64) enum { happened, timeout, raised } {
    const handles_signals = os.onMainThread();
    while (true) {
        const woken = sleepOnce(sleeper, deadline, handles_signals);
        // It may have been while this waited for the lock.
        if (woken == .woken or sleeper.happened()) return .happened;
        if (woken == .timeout) return .timeout;
        if (py.PyErr_CheckSignals() != 0) return .raised;
    }
}

/// A sleeper that waits for a note.
pub const OnNote = struct {
    note: *os.Note,

    pub fn sleep(s: OnNote, timeout: ?u64) os.Wake {
        return s.note.sleep(timeout);
    }

    pub fn happened(s: OnNote) bool {
        return s.note.isWoken();
    }
};

/// Raises the exception, which it takes over, as soon as the main thread runs Python code again.
pub fn raiseSoon(exception: *py.Object) void {
    if (py.Py_AddPendingCall(raisePending, exception) == 0) return;
    // There are 32 already.
    py.restoreException(exception);
    py.PyErr_WriteUnraisable(null);
}

fn raisePending(exception: ?*anyopaque) callconv(.c) c_int {
    py.restoreException(@ptrCast(@alignCast(exception.?)));
    return -1;
}

pub const Waiting = struct {
    wait: switching.Wait,
    entry: inbox.Entry = .{ .arrive = arrive },
    /// The goroutine that waits, null for a thread.
    p: ?*goroutine.PyG,
    /// What dumps show, as G.waiting_on.
    on: *py.Object,
    generation: u32 = 0,
    arrived: bool = false,
    note: os.Note = .{},

    /// For the calling goroutine or thread. False with an exception set.
    pub fn init(w: *Waiting, on: *py.Object) bool {
        w.* = .{ .wait = .{ .contested = true }, .p = null, .on = on };
        if (lane.here()) |g| {
            const p = goroutine.of(g);
            if (goroutine.raisePending(p)) return false;
            w.p = p;
            w.generation = lane.generation;
            w.wait.wake = wakeGoroutine;
        } else w.wait.wake = wakeThread;
        return true;
    }

    fn wakeGoroutine(wait: *switching.Wait) void {
        const w: *Waiting = @alignCast(@fieldParentPtr("wait", wait));
        lane.post(&w.entry);
    }

    fn wakeThread(wait: *switching.Wait) void {
        const w: *Waiting = @alignCast(@fieldParentPtr("wait", wait));
        w.note.wake();
    }

    fn arrive(e: *inbox.Entry) void {
        const w: *Waiting = @alignCast(@fieldParentPtr("entry", e));
        w.arrived = true;
        const g = &w.p.?.g;
        // What a run has left behind does not go on in another.
        if (lane.live and w.generation == lane.generation and lane.claim(g, .ready))
            lane.readyLast(g);
    }

    /// Waits until another goroutine serves the wait, which is queued already, under a lock that
    /// `unlock` lets go. After `timeout` and `raised` none will: the caller takes it out of its
    /// queue.
    pub fn block(
        w: *Waiting,
        reason: g_mod.WaitReason,
        deadline: ?u64,
        context: anytype,
        comptime unlock: fn (@TypeOf(context)) void,
    ) Ended {
        const p = w.p orelse {
            unlock(context);
            return w.blockThread(reason, deadline);
        };
        p.g.waiting_on = w.on;
        const wake = parkOutside(p, reason, deadline, context, unlock);
        if (wake != .ready and w.wait.claim(if (wake == .timeout) .timeout else .interrupted)) {
            if (wake == .timeout) return .timeout;
            _ = goroutine.raisePending(p);
            return .raised;
        }
        // Served. What interrupted the goroutine is raised when it next parks.
        var turns: u32 = 0;
        while (!w.arrived) : (turns += 1) {
            host.Host.inbox.drain();
            if (turns < 100) std.atomic.spinLoopHint() else std.Thread.yield() catch {};
        }
        return w.result();
    }

    fn result(w: *const Waiting) Ended {
        return if (w.wait.outcome == .closed) .closed else .served;
    }

    fn blockThread(w: *Waiting, reason: g_mod.WaitReason, deadline: ?u64) Ended {
        var shown: standin.Shown = undefined;
        shown.begin(reason, w.on, .{ .woken = &w.note });
        defer shown.end();
        const ended = sleepDetached(OnNote{ .note = &w.note }, deadline);
        if (ended == .happened) return w.result();
        if (w.wait.claim(if (ended == .timeout) .timeout else .interrupted))
            return if (ended == .timeout) .timeout else .raised;
        // Another was first: the operation has succeeded, and the wake-up is on its way.
        if (ended == .raised) if (py.takeException()) |exception| raiseSoon(exception);
        while (!w.note.isWoken()) _ = sleepOnce(OnNote{ .note = &w.note }, null, false);
        return w.result();
    }
};

/// Parks a goroutine of the Python lane that code outside of the lane will make ready.
pub fn parkOutside(
    p: *goroutine.PyG,
    reason: g_mod.WaitReason,
    deadline: ?u64,
    context: anytype,
    comptime unlock: fn (@TypeOf(context)) void,
) g_mod.Wake {
    const counted = !p.g.system;
    lane.prepare(&p.g);
    if (counted) lane.outside_waiters += 1;
    unlock(context);
    const wake = lane.park(&p.g, reason, deadline);
    if (counted) lane.outside_waiters -= 1;
    return wake;
}

/// A thread that blocks: without the interpreter's lock, and if it runs a native goroutine without
/// a P, but tied to it.
pub const Detached = struct {
    g: ?*native.G,
    state: *py.ThreadState,

    pub fn leave() Detached {
        const g = switching.enter();
        if (g) |own| switching.lockThread(own);
        const state = py.PyEval_SaveThread().?;
        if (g) |own| switching.enterSyscall(own);
        return .{ .g = g, .state = state };
    }

    pub fn comeBack(d: Detached) void {
        // The processor first: a goroutine that waits for one should not have the interpreter's
        // lock. The wait for that lock is outside of the runtime, where sysmon may pass the
        // processor on.
        if (d.g) |own| {
            switching.exitSyscall(own);
            switching.leave(own);
        }
        py.PyEval_RestoreThread(d.state);
        if (d.g) |own| {
            switching.lock(own);
            _ = switching.unlockThread(own);
            // As Caller: not tied any more, it must not give way here.
            _ = switching.letGo(own);
        }
    }
};
