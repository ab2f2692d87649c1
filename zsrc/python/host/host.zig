//! The Python lane's host: goroutines on thread states, under the interpreter's lock.
//!
//! A goroutine owns a PyThreadState; a switch is PyThreadState_Swap, or what it comes to
//! (swap.zig), and a stack switch. What needs knowledge of a version is found out by experiment
//! when the module is loaded (`calibrate`), so that no private header is needed:
//!  - 3.11 keeps the "gilstate" thread state, which PyGILState_Ensure and so every ctypes callback
//!    uses, in a thread-specific slot that only PyThreadState_New sets: the slot is found by its
//!    value and set at each switch. From 3.12 on PyThreadState_Swap does that.
//!  - Whether a thread state's thread has left the interpreter (a blocking call) is told in 3.11 by
//!    _PyThreadState_UncheckedGet, from 3.12 on by a word of the thread state that is found by
//!    watching one leave.
//!  - Recursion is limited by a counter up to 3.13, found by watching it change.
//!  - The thread that a thread state belongs to, by PyThread_get_thread_ident: found by its value.
//!    There a goroutine's has its own number (idents.zig), which the interpreter itself only
//!    compares.
const std = @import("std");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const m_mod = @import("../../serial/m.zig");
const lane_mod = @import("../../serial/lane.zig");
const inbox_mod = @import("../../serial/inbox.zig");
const sockets = @import("../../netpoll/sockets.zig");
const native = @import("../../parallel/lane.zig");
const py = @import("../py.zig");
const goroutine = @import("goroutine.zig");
const preempt = @import("preempt.zig");
const recursion = @import("recursion.zig");
const signals = @import("signals.zig");
const standin = @import("standin.zig");
const refused = @import("refused.zig");
const replace = @import("replace.zig");
const deadlock = @import("../run/deadlock.zig");
const foreign = @import("foreign.zig");
const idents = @import("idents.zig");
const datastack = @import("datastack.zig");
const mainthread = @import("mainthread.zig");
const fork = @import("../run/fork.zig");
const places = @import("../run/places.zig");
const swaps = @import("swap.zig");
const stores = @import("swap_stores.zig");

const G = g_mod.G;
const M = m_mod.M;

pub const Lane = lane_mod.Lane(Host);
pub const Rt = @import("../../serial/waiting.zig").Waiting(Lane);
/// Goroutines that wait, without data of their own.
pub const Queue = @import("../../core/waiters.zig").Waiters(Rt, void);
pub const Poller = sockets.Poller(Lane);

pub const gpa = std.heap.c_allocator;

pub var the_lane: Lane = .{ .gpa = gpa };
pub var poller: Poller = .{};
pub var interpreter: *py.Interpreter = undefined;

/// What was found out about this interpreter.
pub const Mechanisms = struct {
    gilstate_slot: ?os.Slot = null,
    /// 3.12+: where a thread state says that it is attached, and which bits do.
    attached_offset: ?usize = null,
    attached_mask: u32 = 0,
    detached_value: u32 = 0,
    /// Words of a thread state that are not null once something is kept in it.
    used_words: [12]usize = undefined,
    used_count: usize = 0,
    /// Those of them that have thread-local data: up to 3.12 the dict, then two keys.
    local_words: [2]usize = undefined,
    local_count: usize = 0,
    /// Which word of a thread state has its context variables; 0 if that is not known.
    variables_word: usize = 0,
    /// Up to 3.13: the int that counts the recursion left, from 3.12 on of that through C.
    recursion_offset: ?usize = null,
    /// PyThreadState.thread_id.
    ident_offset: usize = 0,
};
pub var mechanisms: Mechanisms = .{};

/// How often those that wait for the interpreter's lock are thought of. From 3.12 on, where swaps
/// are the interpreter's, PyThreadState_Swap lets the lock go and takes it back at once. That wakes
/// one of them, too late, and starts its switch interval anew, so that the forced hand-over at the
/// interval's end never comes: where goroutines switch each millisecond, it would wait for ever.
var offer_interval_ns: u64 = never;
const never = std.math.maxInt(u64);
const least_offer_interval_ns = std.time.ns_per_ms;
/// Without a thread to wake it takes 0.1 to 0.25 us, with one 8 us (Linux, x86-64, 3.12).
const quick_release_ns = 500;
/// A thread that is woken has the lock this long after (45 us on the same machine).
const wake_up_ns = 50 * std.time.ns_per_us;

/// An atexit function of the module's. A run that goes on is a daemon thread's. From here on sysmon
/// looks at the interpreter with care. While the interpreter ends, it ends each thread that wants
/// its lock, or from 3.14 on has it stand still; that it knows by the thread state, which it frees
/// in the end and of which there may be a new one. So those of golibx's that come by then stand
/// still.
pub fn beforeExit() void {
    if (!the_lane.live or the_lane.here() != null) return;
    preempt.holdOff();
    states_lock.lock();
    defer states_lock.unlock();
    @atomicStore(bool, &interpreter_ends, true, .monotonic);
}

/// Whether the interpreter ends, or has ended, beside a run. Without the lock.
inline fn endsBeside() bool {
    return @atomicLoad(bool, &interpreter_ends, .monotonic) and isFinalizing();
}

pub noinline fn isFinalizing() bool {
    const is_finalizing = py.extra.Py_IsFinalizing orelse
        py.extra._Py_IsFinalizing orelse return false;
    return is_finalizing() != 0;
}

pub fn standStill() noreturn {
    while (true) os.sleepNs(std.time.ns_per_s);
}

/// Before a run, with the lock. `by_hand` says whether thread states may be swapped so.
pub fn setUp(by_hand: bool) void {
    if (interpreter_ends) preempt.letGo();
    interpreter_ends = false;
    swaps.setUp(by_hand);
    offer_interval_ns = if (py.minor() < 12 or swaps.in_use)
        never
    else
        @max(least_offer_interval_ns, preempt.readSwitchInterval());
}

/// That of g0 on the thread that called run().
var main_base: ?*py.ThreadState = null;

/// Thread states that wait for a goroutine; all of them are clean.
var free_states: std.ArrayList(*py.ThreadState) = .empty;
/// sysmon reads thread states without the interpreter's lock; one is deleted only under this one.
var states_lock: lane_mod.Lock = .{};
/// A new thread takes the lock with this one, and then makes its own: to make one takes locks of
/// the interpreter's, which without its lock a thread could have while another forks. Up to 3.11
/// the child would wait for the one that guards the list of them, and from 3.14 on for
/// tracemalloc's. No Python code runs on it: its limits of the stack are another thread's.
///
/// A thread that has the interpreter's lock does not wait for this one's.
var entrance: ?*py.ThreadState = null;
var entrance_lock: lane_mod.Lock = .{};

/// With the lock, before there is another thread. Without memory threads do without.
pub fn openEntrance() void {
    if (entrance != null) return;
    const state = py.PyThreadState_New(interpreter) orelse return;
    identOf(state).* = idents.idle();
    entrance = state;
}

/// With the lock. If a thread that was left behind is in it just now, it stays for the next run.
fn closeEntrance() ?*py.ThreadState {
    if (!entrance_lock.tryLock()) return null;
    defer entrance_lock.unlock();
    defer entrance = null;
    return entrance;
}

/// Takes the lock for the calling thread, with a new thread state, `state.*`.
pub fn acquireAnew(state: *?*anyopaque) void {
    if (endsBeside()) standStill();
    entrance_lock.lock();
    defer entrance_lock.unlock();
    const shared = entrance orelse {
        const own = bear();
        state.* = @ptrCast(own);
        return py.PyEval_RestoreThread(own);
    };
    py.PyEval_RestoreThread(shared);
    // tracemalloc asks what the thread's is.
    if (mechanisms.gilstate_slot) |slot| os.slotSet(slot, shared);
    const own = bear();
    state.* = @ptrCast(own);
    _ = exchange(own);
}

fn bear() *py.ThreadState {
    return py.PyThreadState_New(interpreter) orelse os.fatal("no memory for a thread state", .{});
}

/// The interpreter is about to end beside a run, on another thread. It deletes thread states
/// without that lock then.
var interpreter_ends = false;

pub const Host = struct {
    /// Outlives runs: what native code posts may arrive at any time.
    pub var inbox: inbox_mod.Inbox = .{};

    pub inline fn lane() *Lane {
        return &the_lane;
    }

    // ---- the lock ----

    pub fn acquire(m: *M) void {
        if (endsBeside()) standStill();
        const asked = the_lane.lockAsked();
        if (m.base) |base| py.PyEval_RestoreThread(@ptrCast(base)) else acquireAnew(&m.base);
        const state: *py.ThreadState = @ptrCast(m.base.?);
        m.lock_waited_ns = if (asked == 0) 0 else os.nanotime() -| asked;
        swaps.check(state);
    }

    pub fn release(m: *M) void {
        _ = py.PyEval_SaveThread();
        m.wakeSuccessor();
    }

    /// The main goroutine runs on the thread state that called run(), so that the caller's frames,
    /// thread-local data, tracing and profiling are its own. The thread gets another for g0. Other
    /// threads get theirs as they take the lock.
    pub fn enterThread(m: *M) void {
        if (!m.main) return;
        const state = bear();
        m.base = @ptrCast(state);
        // The thread's number is the main goroutine's: a look for that finds one state. On g0,
        // where signal handlers run, the caller is the thread.
        if (idents.take()) |ident| {
            identOf(state).* = ident;
        } else |_| os.fatal("no memory for a thread state", .{});
        main_base = state;
        goroutine.main.?.state = exchange(state);
    }

    /// With the lock; without it afterwards, except on the main M.
    pub fn leaveThread(m: *M) void {
        m.state.store(null, .release);
        mainthread.stopFollowing(if (m.main) null else m);
        const base: *py.ThreadState = @ptrCast(m.base.?);
        if (m.main) {
            main_base = null;
            const own = goroutine.main_state.?;
            _ = exchange(own);
            // A thread that has the lock meanwhile may fork, and the child clears what is not yet.
            py.PyThreadState_Clear(base);
            if (fork.borrowedStack()) |stack| {
                tellStack(own, stack);
            } else if (py.extra.PyUnstable_ThreadState_ResetStackProtection) |reset| reset(own);
            return deleteState(base);
        }
        py.PyThreadState_Clear(base);
        states_lock.lock();
        defer states_lock.unlock();
        py.PyThreadState_DeleteCurrent();
    }

    pub inline fn offerInterval() u64 {
        return offer_interval_ns;
    }

    /// Threads that wait for the lock are woken whenever it is let go, as by each switch, and then
    /// find it taken again. If letting go took a system call's time, a thread was woken.
    pub fn offerLock() void {
        offerLockAndAttach(py.PyThreadState_Get());
    }

    /// A stand-in's park.
    pub fn block(g: *G, deadline: ?u64) void {
        standin.block(g, deadline);
    }

    // ---- switching ----

    /// Makes the goroutine's thread state, or the M's base one, the current one.
    pub inline fn swap(m: *M, next: ?*G) void {
        const state = if (next) |g| stateOf(g) else m.base.?;
        // In between neither is the current one for sure. A goroutine that is delayed there does
        // not block.
        m.state.store(null, .monotonic);
        if (!swaps.byHand(@ptrCast(state)))
            swapOtherwise(m, @ptrCast(state), next == null or !deadlock.on_main_thread);
        m.state.store(if (next == null) null else state, .monotonic);
    }

    pub inline fn stateOf(g: *G) *anyopaque {
        return @ptrCast(goroutine.of(g).state.?);
    }

    /// What a switch to the goroutine reads besides its stack; or its start does.
    pub inline fn prefetch(g: *G) void {
        const p = goroutine.of(g);
        const state: [*]const u8 = @ptrCast(p.state orelse return goroutine.prefetch(p));
        @prefetch(state, .{});
        @prefetch(state + 64, .{});
        datastack.prefetch(g.stack);
    }

    pub fn start(g: *G) error{OutOfMemory}!void {
        const p = goroutine.of(g);
        if (p == goroutine.main) {
            g.stack = try goroutine.mainStack();
            tellStack(p.state.?, g.stack);
            return;
        }
        if (p.runs_handlers and signals.canBorrow()) {
            g.stack = refused.takeStack(p) orelse try the_lane.stacks.get();
            signals.borrow(p);
            return tellStack(p.state.?, g.stack);
        }
        const state = try takeState();
        errdefer putState(state);
        p.state = state;
        g.stack = refused.takeStack(p) orelse try the_lane.stacks.get();
        datastack.place(state, g.stack);
        setRecursionLimit(state, g.stack.size);
        tellStack(state, g.stack);
    }

    /// Where the calls of a goroutine that was started begin.
    pub fn stackTop(g: *G) usize {
        return datastack.below(goroutine.of(g).state, g.stack);
    }

    fn takeState() error{OutOfMemory}!*py.ThreadState {
        const ident = try idents.take();
        errdefer idents.give(ident);
        const state = free_states.pop() orelse try newState();
        identOf(state).* = ident;
        return state;
    }

    /// While no goroutine has the state, it must not be found by its number.
    fn putState(state: *py.ThreadState) void {
        idents.give(identOf(state).*);
        identOf(state).* = idents.idle();
        free_states.appendAssumeCapacity(state);
    }

    fn newState() error{OutOfMemory}!*py.ThreadState {
        try free_states.ensureTotalCapacity(
            gpa,
            the_lane.stacks.in_use + free_states.items.len + 2,
        );
        return py.PyThreadState_New(interpreter) orelse error.OutOfMemory;
    }

    pub fn runBody(g: *G) void {
        const p = goroutine.of(g);
        goroutine.runBody(p);
        if (endsUnclean(p)) swaps.doomed += 1;
    }

    /// Its thread state will be deleted once it has left it.
    fn endsUnclean(p: *const goroutine.PyG) bool {
        return p != goroutine.main and p.state != null and !p.clean;
    }

    /// Lets a new goroutine go on with a finished one's stack and thread state.
    pub inline fn adopt(from: *G, to: *G) bool {
        const f = goroutine.of(from);
        if (f == goroutine.main or !f.clean or from.stack.lo == refused.ender_stack.lo)
            return false;
        const t = goroutine.of(to);
        if (t.runs_handlers) return false;
        to.stack = from.stack;
        to.sp = 1; // it has a stack; the value is written when it parks
        t.state = f.state;
        from.stack = .{};
        f.state = null;
        return true;
    }

    /// Takes back what a finished goroutine that was adopted from still has.
    pub inline fn free(g: *G) void {
        goroutine.free(goroutine.of(g));
    }

    /// As free, with its stack and thread state. The caller still runs on that stack.
    pub fn recycle(g: *G) void {
        const p = goroutine.of(g);
        if (p != goroutine.main) {
            if (!refused.leaveStack(g.stack)) the_lane.stacks.put(g.stack);
            // One that runs signal handlers may have had another's.
            if (p.state) |state| if (p.clean) {
                datastack.takeAway(state, g.stack);
                putState(state);
            } else {
                deleteState(state);
                swaps.doomed -= 1;
            };
        }
        p.state = null;
        if (p.runs_handlers) signals.leave();
        goroutine.free(p);
    }

    /// Of a stray that has ended, on g0: takes back what it still has. The pool of its run may be
    /// the present one's, be kept for a run with stacks of that size, or be gone.
    pub fn bury(g: *G) void {
        const p = goroutine.of(g);
        if (endsUnclean(p)) swaps.doomed -= 1;
        swaps.settle();
        py.PyThreadState_Clear(p.state.?);
        deleteState(p.state.?);
        p.state = null;
        if ((the_lane.live or the_lane.stacks_kept) and the_lane.stacks.has(g.stack)) {
            the_lane.stacks.put(g.stack);
        }
        goroutine.free(p);
    }

    pub fn refuse(g: *G) void {
        refused.add(goroutine.of(g));
    }

    /// On g0, as soon as there are some.
    pub fn endRefused() void {
        refused.attend();
    }

    /// Whether code that is in the middle of a call may hold something of the thread's.
    pub fn keepsThread(g: *G) bool {
        return foreign.keepsThread(goroutine.of(g));
    }

    /// Whether the call to the runtime with that frame, the outermost one of its code and on the
    /// goroutine's stack, lies above the calls that were last found to keep no thread.
    pub inline fn callsAsBefore(g: *G, frame: usize) bool {
        return foreign.wasSeen(goroutine.of(g), frame);
    }

    // ---- what sysmon asks ----

    pub inline fn attachment(state: *anyopaque) lane_mod.Attachment {
        if (mechanisms.attached_offset) |offset| {
            states_lock.lock();
            defer states_lock.unlock();
            const address = @intFromPtr(state) + offset;
            var word: u32 = undefined;
            if (interpreter_ends) {
                if (!os.peek(address, std.mem.asBytes(&word))) return .attached;
            } else word = @atomicLoad(u32, @as(*const u32, @ptrFromInt(address)), .monotonic);
            const bits = word & mechanisms.attached_mask;
            return if (bits == mechanisms.detached_value) .detached else .attached;
        }
        const current = (py.extra._PyThreadState_UncheckedGet orelse return .attached)();
        if (current == null) return .detached;
        return if (@as(*anyopaque, @ptrCast(current.?)) == state) .attached else .unsure;
    }

    pub fn requestPreempt(m: *M) bool {
        return preempt.request(m);
    }

    pub inline fn preemptLead() u64 {
        return preempt.lead_ns;
    }

    pub fn armPreempt(g: *G) void {
        preempt.arm(goroutine.of(g));
    }

    // ---- the network ----

    pub inline fn pollWanted() bool {
        return poller.wanted();
    }

    pub inline fn signalsWatched() bool {
        return poller.backend().signals != .none;
    }

    pub fn signalCame() void {
        signals.passOn();
    }

    pub fn pollNow() void {
        poller.now();
    }

    pub fn pollResults() void {
        poller.results();
    }

    /// `deadline` in monotonic ns, or timer.Heap.never.
    pub fn pollWait(deadline: u64) os.Wake {
        const timeout: ?u64 = if (deadline == std.math.maxInt(u64))
            null
        else
            deadline -| os.nanotime();
        return switch (poller.wait(timeout)) {
            .events => .woken,
            .timeout => .timeout,
            .interrupted => .interrupted,
        };
    }

    pub fn pollBreak() void {
        poller.backend().wake();
    }

    pub fn pollPending() bool {
        return poller.wanted() and poller.backend().pending();
    }

    // ---- the rest ----

    /// Where a goroutine is that blocks, for an event.
    pub fn keepPlace(g: *G) u32 {
        return places.keep(goroutine.of(g));
    }

    pub fn dropPlace(place: u32) void {
        places.drop(place);
    }

    /// At a turn of the P that was asked for.
    pub fn attend() void {
        recursion.settleAll();
    }

    pub fn hopesForSignals() bool {
        return signals.hopeFor();
    }

    /// All goroutines sleep. Null if one has been woken for it, else when to ask again, in ns. May
    /// leave the lock meanwhile.
    pub fn onDeadlock() ?u64 {
        return deadlock.report();
    }

    /// Has signal handlers called, on the main thread and with the lock, but on no goroutine: those
    /// of the program's own wait for one, see signals.zig.
    pub fn onSignal() void {
        if (signals.mainIsTold()) return;
        const depth = fork.depth;
        const raised = !mainthread.callHandlers();
        if (depth != fork.depth) fork.endHandler(if (raised) py.takeException() else null);
        if (raised) signals.interruptMain(py.takeException() orelse return);
        signals.seeToQueue();
    }

    /// Whether that may be on any thread.
    pub fn handlesSignals() bool {
        return mainthread.isKnown();
    }

    /// The main goroutine is about to run on the M, which calls.
    pub fn carryMain(m: *M) void {
        mainthread.follow(m);
    }
};

/// Whether the interpreter's lock is held by a thread state that may not be there any more. For
/// dumps: it needs no lock.
pub fn hasInterpreter(state: usize) bool {
    if (state == 0) return false;
    if (mechanisms.attached_offset) |offset| {
        var bits: u32 = undefined;
        if (!os.peek(state +% offset, std.mem.asBytes(&bits))) return false;
        return bits & mechanisms.attached_mask != mechanisms.detached_value;
    }
    const current = (py.extra._PyThreadState_UncheckedGet orelse return false)();
    return @intFromPtr(current) == state;
}

/// What the thread of a native goroutine keeps for Python: C code that is calling back into it has
/// a thread state there.
pub fn nativeHolds() native.Holds {
    const state = py.PyGILState_GetThisThreadState() orelse return .nothing;
    const get = py.extra._PyThreadState_UncheckedGet orelse
        py.extra.PyThreadState_GetUnchecked orelse
        return .state;
    return if (get() == state) .lock else .state;
}

/// PyThreadState_Swap, where the interpreter may end meanwhile: beside a run on another thread than
/// the main one, and beside what a run has left. That of 3.12 lets the lock go, marks the two
/// thread states, which may be freed by then, and takes the lock back. Apart from that it is
/// quicker.
inline fn swapStates(state: *py.ThreadState) ?*py.ThreadState {
    if (py.minor() != 12) return py.PyThreadState_Swap(state);
    const before = py.PyEval_SaveThread();
    py.PyEval_RestoreThread(state);
    return before;
}

noinline fn swapOtherwise(m: *M, next: *py.ThreadState, may_end: bool) void {
    if (stores.in_use) return stores.exchange(next);
    const offers = swaps.askedLate(next);
    // Others may have the lock meanwhile where it is offered, and from 3.12 on by every swap.
    const is_noted = the_lane.ring.wants(.gil_wait) and (offers or py.minor() >= 12);
    const asked = if (is_noted) os.nanotime() else 0;
    if (offers) {
        offerLockAndAttach(next);
    } else _ = if (may_end) swapStates(next) else py.PyThreadState_Swap(next);
    if (asked != 0 and the_lane.owner.load(.monotonic) == m) the_lane.noteOffer(asked);
    if (mechanisms.gilstate_slot) |slot| os.slotSet(slot, next);
}

/// Lets other threads have the lock, if any want it, and goes on with `state`.
fn offerLockAndAttach(state: *py.ThreadState) void {
    const began = os.nanotime();
    _ = py.PyEval_SaveThread();
    if (os.nanotime() - began > quick_release_ns) {
        the_lane.counters.lock_offers += 1;
        os.sleepNs(wake_up_ns);
    }
    if (endsBeside()) standStill();
    py.PyEval_RestoreThread(state);
}

/// Makes another thread state the current one, for PyGILState too. What allocates while the two
/// differ is refused by 3.11's debugging allocator, which takes it for a call without the lock.
pub fn exchange(state: *py.ThreadState) ?*py.ThreadState {
    const before = swapStates(state);
    if (mechanisms.gilstate_slot) |slot| os.slotSet(slot, state);
    return before;
}

pub inline fn identOf(state: *py.ThreadState) *idents.Ident {
    return @ptrFromInt(@intFromPtr(state) + mechanisms.ident_offset);
}

/// At its end: drops an exception of PyThreadState_SetAsyncExc that came too late. That lies before
/// the number (3.11 to 3.15); taking another word for it costs a call.
pub inline fn dropAsyncException(state: *py.ThreadState) void {
    const word: *const usize =
        @ptrFromInt(@intFromPtr(state) + mechanisms.ident_offset - @sizeOf(usize));
    if (word.* != 0) takeAsyncException();
}

/// The interpreter looks for one at each of its checks until it was raised.
noinline fn takeAsyncException() void {
    const nothing = py.importFrom("golibx.patch.threads", "do_nothing") orelse
        return py.PyErr_Clear();
    defer py.decref(nothing);
    if (py.call(nothing, &.{})) |none| py.decref(none) else py.PyErr_Clear();
}

/// The number that stands for the calling goroutine as a thread; null if the calling Python code is
/// on a plain thread instead, which C's number stands for. The main goroutine's is that of the
/// thread that called run(), wherever it is. With the lock.
pub inline fn goroutineIdent() ?idents.Ident {
    const state = py.PyThreadState_Get();
    const ident = identOf(state).*;
    if (idents.has(ident)) return if (state == main_base) callersIdent() else ident;
    if (fork.renumbered != null) return fork.identInChild(state);
    return if (state == goroutine.main_state) ident else null;
}

/// On g0 of the thread that called run(): null if that is what C says it is.
noinline fn callersIdent() ?idents.Ident {
    return if (fork.renumbered != null) fork.identInChild(goroutine.main_state.?) else null;
}

/// The goroutine's with a thread state of that number; null if there is none.
pub fn goroutineOf(ident: idents.Ident) ?*goroutine.PyG {
    var it = the_lane.all_g;
    while (it) |g| : (it = g.all_next) {
        const p = goroutine.of(g);
        if (p.runs_handlers) continue; // as the main goroutine
        if (p.state) |state| if (identOf(state).* == ident) return p;
    }
    return null;
}

/// One that has been cleared and is not current.
fn deleteState(state: *py.ThreadState) void {
    const ident = identOf(state).*;
    {
        states_lock.lock();
        defer states_lock.unlock();
        py.PyThreadState_Delete(state);
    }
    if (idents.has(ident)) idents.give(ident);
}

/// Whether something was left in a goroutine's thread state, one way or another, that its next user
/// must not find.
pub fn isUsed(state: *py.ThreadState) bool {
    const fields: [*]const usize = @ptrCast(@alignCast(state));
    var all: usize = 0;
    for (mechanisms.used_words[0..mechanisms.used_count]) |at| all |= fields[at];
    return all != 0;
}

/// The same, except for its dict.
pub fn isUsedBeside(state: *py.ThreadState, dict: *py.Object) bool {
    const fields: [*]const usize = @ptrCast(@alignCast(state));
    for (mechanisms.used_words[0..mechanisms.used_count]) |at| {
        if (fields[at] != 0 and fields[at] != @intFromPtr(dict)) return true;
    }
    return false;
}

/// Whether a thread state, of the calling thread, has context variables.
pub inline fn hasVariables(state: *py.ThreadState) bool {
    const at = mechanisms.variables_word;
    if (at == 0) return true;
    const fields: [*]const ?*py.Object = @ptrCast(@alignCast(state));
    return py.PyObject_Size(fields[at] orelse return false) != 0;
}

/// The context that has those of a thread state, any one's, if it has any and it is known where.
pub inline fn variablesOf(state: *py.ThreadState) ?*py.Object {
    const at = mechanisms.variables_word;
    if (at == 0) return null;
    const fields: [*]const ?*py.Object = @ptrCast(@alignCast(state));
    return fields[at];
}

/// Drops those that the current thread state has got without being told to. False if something may
/// be left of them.
pub fn dropVariables(state: *py.ThreadState) bool {
    const fields: [*]?*py.Object = @ptrCast(@alignCast(state));
    const at = mechanisms.variables_word;
    if (at == 0) return true;
    const old = fields[at] orelse return true;
    // A variable remembers its value together with the state's id and a number that each entry
    // into a context and each exit moves on; not so the first context of a state.
    const other = py.extra.PyContext_CopyCurrent() orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(other);
    if (py.extra.PyContext_Enter(other) != 0 or py.extra.PyContext_Exit(other) != 0) {
        py.PyErr_Clear();
        return false;
    }
    fields[at] = null;
    py.decref(old);
    return true;
}

/// Finds the words of a thread state that are not null once something is kept in it, by having
/// some kept: thread-local data (in its dict, from 3.13 on under keys of its own), hooks for
/// asynchronous generators, how far the origins of coroutines are tracked. False with an exception
/// set.
pub fn findUsedWords() bool {
    if (mechanisms.used_count != 0) return true;
    const class = replace.classOf("_thread", "_local") orelse return false;
    defer py.decref(class);
    const local = py.call(class, &.{}) orelse return false;
    defer py.decref(local);
    const probe = py.PyThreadState_New(interpreter) orelse {
        _ = py.PyErr_NoMemory();
        return false;
    };
    const own = exchange(probe);
    const fields = wordsOf(probe, most_fields);
    const before = copyOf(most_fields, fields);
    const has_local = py.PyObject_SetAttrString(local, "x", py.none()) == 0;
    const with_local = copyOf(most_fields, fields);
    const kept = has_local and keepInState();
    py.PyErr_Clear();
    const after = copyOf(most_fields, fields);
    findVariables(fields);
    _ = exchange(own.?);
    for (before[0..fields.len], after[0..fields.len], 0..) |b, a, i| {
        // Of what changes, the data is what was not there.
        const full = mechanisms.used_count == mechanisms.used_words.len;
        if (!kept or b != 0 or a == 0 or full) continue;
        if (a <= 1 << 16 and a != probe_depth) continue;
        mechanisms.used_words[mechanisms.used_count] = i;
        mechanisms.used_count += 1;
    }
    for (before[0..fields.len], with_local[0..fields.len], 0..) |b, a, i| {
        const full = mechanisms.local_count == mechanisms.local_words.len;
        if (!has_local or b != 0 or a <= 1 << 16 or full) continue;
        mechanisms.local_words[mechanisms.local_count] = i;
        mechanisms.local_count += 1;
    }
    py.PyThreadState_Clear(probe);
    py.PyThreadState_Delete(probe);
    return true;
}

/// Drops the thread-local data of a thread state, the calling thread's, with what the finalizers of
/// some keep in it anew. That runs Python code. What is not known to be such data stays.
pub fn dropLocals(state: *py.ThreadState) void {
    const fields: [*]?*py.Object = @ptrCast(@alignCast(state));
    const local_words = mechanisms.local_words[0..mechanisms.local_count];
    const most_turns = 8; // what goes on for longer never ends
    for (0..most_turns) |_| {
        var has_some = false;
        for (local_words) |at| {
            const kept = fields[at] orelse continue;
            if (py.minor() < 13) {
                if (py.PyDict_Size(kept) == 0) continue;
                py.PyDict_Clear(kept);
            } else {
                fields[at] = null;
                py.decref(kept);
            }
            has_some = true;
        }
        if (!has_some) return;
    }
}

/// Not zero, and nothing that other fields are likely to hold.
const probe_depth = 12345;

/// The first words of a thread state that PyThreadState_New has made. In some versions one has no
/// more than 330 bytes, and behind it the memory may end.
pub fn wordsOf(state: *py.ThreadState, most: usize) []const usize {
    const first: [*]const usize = @ptrCast(@alignCast(state));
    // What the interpreter's debug allocator has in front of a block: its size, most significant
    // byte first, a letter for the kind of memory, and seven bytes that no code may write.
    var front: [16]u8 = @splat(0);
    _ = os.peek(@intFromPtr(state) - front.len, &front);
    const is_debugs = std.mem.allEqual(u8, front[9..16], 0xfd);
    const size = if (is_debugs)
        std.mem.readInt(u64, front[0..8], .big)
    else
        os.allocatedSize(state);
    return first[0..@min(size / @sizeOf(usize), most)];
}

pub fn copyOf(comptime most: usize, from: []const usize) [most]usize {
    var copy: [most]usize = @splat(0);
    @memcpy(copy[0..from.len], from);
    return copy;
}

/// Of the current thread state: where it has its context variables. That is a used word, too.
fn findVariables(fields: []const usize) void {
    defer py.PyErr_Clear();
    const context = py.extra.PyContext_CopyCurrent() orelse return;
    defer py.decref(context);
    if (py.extra.PyContext_Enter(context) != 0) return;
    const entered = std.mem.findScalar(usize, fields, @intFromPtr(context));
    if (py.extra.PyContext_Exit(context) != 0) return;
    const at = entered orelse return;
    if (mechanisms.used_count == mechanisms.used_words.len) return;
    mechanisms.variables_word = at;
    mechanisms.used_words[mechanisms.used_count] = at;
    mechanisms.used_count += 1;
}

fn keepInState() bool {
    const set_hooks = py.PySys_GetObject("set_asyncgen_hooks") orelse return false;
    const set_depth = py.PySys_GetObject("set_coroutine_origin_tracking_depth") orelse return false;
    const depth = py.PyLong_FromLongLong(probe_depth) orelse return false;
    defer py.decref(depth);
    py.decref(py.call(set_hooks, &.{ set_hooks, set_hooks }) orelse return false);
    py.decref(py.call(set_depth, &.{depth}) orelse return false);
    return true;
}

const most_fields = 64;

/// After a run: gives the thread states back. With the lock, on the thread that ran it.
pub fn releaseStates() void {
    var shared = closeEntrance();
    if (shared != null or free_states.items.len > 0) swaps.settle();
    while (shared orelse free_states.pop()) |state| {
        shared = null;
        py.PyThreadState_Clear(state);
        deleteState(state);
    }
    free_states.deinit(gpa);
    free_states = .empty;
}

/// In the child of a fork, where the interpreter deletes it, during a run or not.
pub fn forgetEntrance() void {
    entrance = null;
    entrance_lock = .{};
}

/// In the child of a fork, where the interpreter deletes them.
pub fn forgetStates() void {
    free_states.clearRetainingCapacity();
    states_lock = .{};
    datastack.renew();
    interpreter_ends = false;
    main_base = null;
    swaps.in_use = false;
    swaps.doomed = 0;
    stores.forget();
}

/// 3.11. The child of a fork has a slot of its own.
pub fn findGilstateSlot() void {
    if (py.minor() > 11) return;
    mechanisms.gilstate_slot = if (py.PyGILState_GetThisThreadState()) |state|
        os.findSlot(state)
    else
        null;
}

/// Stack bytes that one level of recursion through C may take: a level is the interpreter loop, a
/// call, and a slot function or two. Measured with repr, copy, json and re at under 700 bytes.
const c_level_bytes = 1024;
/// The compiler counts levels of its own, against what the counter has left when it begins, and
/// takes under 140 bytes for each (measured on 3.13 with `f()()()…`).
const compiler_level_bytes = 192;

/// On 3.12 and 3.13, where the counter of recursion through C is not the one of Python calls. Where
/// a stack has a reserve (recursion.zig) that stops the others.
fn setRecursionLimit(state: *py.ThreadState, stack_size: usize) void {
    if (py.minor() < 12) return;
    const left = recursion.counter(state) orelse return;
    const level: usize = if (recursion.usable()) compiler_level_bytes else c_level_bytes;
    left.* = @min(left.*, @as(i32, @intCast(stack_size / level)));
}

/// From 3.14 on the interpreter compares the stack pointer with the bounds of the thread's stack.
/// Not only deep recursion is told by that: objects that are let go far down, as it takes all of
/// our stacks to be, are kept for later.
pub fn tellStack(state: *py.ThreadState, stack: g_mod.Stack) void {
    const set = py.extra.PyUnstable_ThreadState_SetStackProtection orelse return;
    if (set(state, @ptrFromInt(stack.lo), stack.size) != 0) py.PyErr_Clear();
}

const words_looked_at = 48; // the start of a PyThreadState: under 200 bytes

fn words(state: *py.ThreadState) *[words_looked_at]u32 {
    return @ptrCast(@alignCast(state));
}

/// Finds out what `Mechanisms` wants to know. With the lock, at import. False with an exception
/// set.
pub fn calibrate() bool {
    interpreter = py.PyInterpreterState_Get();
    const own = py.PyThreadState_Get();
    if (!findIdent(own)) return false;
    const is_11 = py.minor() == 11;
    findGilstateSlot();
    const probe = py.PyThreadState_New(interpreter) orelse return outOfMemory();
    _ = exchange(probe);
    const attached = words(probe).*;
    // No other code has a reason to touch the probe while it is detached.
    const saved = py.PyEval_SaveThread();
    const detached = words(probe).*;
    py.PyEval_RestoreThread(saved.?);
    const again = words(probe).*;
    _ = py.Py_EnterRecursiveCall("");
    _ = py.Py_EnterRecursiveCall("");
    _ = py.Py_EnterRecursiveCall("");
    const deep = words(probe).*;
    py.Py_LeaveRecursiveCall();
    py.Py_LeaveRecursiveCall();
    py.Py_LeaveRecursiveCall();
    _ = exchange(own);
    py.PyThreadState_Clear(probe);
    py.PyThreadState_Delete(probe);
    for (attached, detached, again, deep, 0..) |a, d, b, r, i| {
        if (!is_11 and a != d and a == b and mechanisms.attached_offset == null) {
            mechanisms.attached_offset = i * 4;
            mechanisms.attached_mask = a ^ d;
            mechanisms.detached_value = d & (a ^ d);
        }
        if (b -% r == 3 and b < 1 << 20) mechanisms.recursion_offset = i * 4;
    }
    return true;
}

fn outOfMemory() bool {
    _ = py.PyErr_NoMemory();
    return false;
}

/// A goroutine that Python code takes for another would release locks that are not its own: without
/// this nothing runs. False with an exception set.
fn findIdent(own: *py.ThreadState) bool {
    const fields: [*]const idents.Ident = @ptrCast(@alignCast(own));
    const ident = py.PyThread_get_thread_ident();
    const probe = idents.take() catch return outOfMemory();
    defer idents.give(probe);
    const current_frames = replace.builtin("sys", "_current_frames") orelse return false;
    defer py.decref(current_frames);
    const key = py.PyLong_FromUnsignedLongLong(probe) orelse return false;
    defer py.decref(key);
    // It is within the first 200 bytes of all versions: the rest is not looked at.
    for (fields[0 .. most_fields * @sizeOf(usize) / @sizeOf(idents.Ident)], 0..) |field, i| {
        if (field != ident) continue;
        mechanisms.ident_offset = i * @sizeOf(idents.Ident);
        // What the interpreter finds it by is the proof.
        identOf(own).* = probe;
        const called = py.call(current_frames, &.{});
        identOf(own).* = ident;
        const frames = called orelse return false;
        defer py.decref(frames);
        if (py.PyDict_GetItemWithError(frames, key) != null) return true;
    }
    _ = py.raise(
        py.exc.importError(),
        "golibx has not found where Python 3.{d} keeps a thread's ident: " ++
            "it needs a golibx that knows it",
        .{py.minor()},
    );
    return false;
}
