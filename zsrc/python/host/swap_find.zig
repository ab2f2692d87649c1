//! How the interpreter swaps thread states, found by having it do so: see swap.zig.
//!
//! Once in a process, at the first run. Two thread states are made, and the interpreter swaps them
//! while the memory is watched: the thread's words and the lock's last holder follow, bits of the
//! states turn over. A pending call that does nothing shows where those are counted. A thread that
//! asks for the lock shows by which bit, and that the thread's words lie at the same place on
//! another one. No table of offsets has a part in it; what is taken for granted is that a version's
//! low byte is for requests, and the first words of a thread state.
//!
//! In the end a swap by hand has to leave the same memory as the interpreter's, the API has to
//! agree, and a request for the lock has to be seen. Whatever is not as expected leaves swaps to
//! the interpreter, with the reason for `golibx info`. Other threads may ask for the lock or have
//! it at any time, and so spoil what is seen: then it is looked at again.
const std = @import("std");
const os = @import("../../os/os.zig");
const arch = @import("../../arch/arch.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const swap = @import("swap.zig");
const stores = @import("swap_stores.zig");

const State = *py.ThreadState;

const first_minor = 12;
const last_minor = 15;
const tries = 4;
/// The start of a thread state; the least of them has 330 bytes.
const state_words = 32;
const Words = [state_words]u64;
/// Of an interpreter's start, with all that is about pending calls.
const interpreter_bytes = 16 * 1024;
const most_data = 4 << 20;
/// The low byte of an eval_breaker is for requests (3.13 to 3.15).
const events = 0xff;
/// For a thread that has to ask for the lock.
const patience_ns = 200 * std.time.ns_per_ms;
const quick_interval_s = 10e-6;

var looked = false;
var main_looked = false;

const Error = error{
    /// An exception is set.
    Raised,
    Unknown,
};

fn unknown(text: [:0]const u8) Error {
    swap.reason = text;
    return error.Unknown;
}

/// Before a run, with the lock. `on_main` says that it is on Python's main thread. False with an
/// exception set.
pub fn find(on_main: bool) bool {
    if (!looked) {
        looked = true;
        swap.known = look() catch |e| {
            looked = e == error.Unknown;
            return looked;
        };
    }
    if (!on_main or main_looked) return true;
    main_looked = true;
    if (swap.known) |*w| w.pending_main = pendingOfMain() catch |e| {
        main_looked = e == error.Unknown;
        if (main_looked) swap.known = null;
        return main_looked;
    };
    return true;
}

fn look() Error!swap.Way {
    if (!swap.supported) return unknown("only known on Linux on x86-64");
    if (py.minor() > last_minor) return unknown("this version of Python is not known");
    const own = py.PyThreadState_Get();
    const a = try newState();
    defer remove(a);
    const b = try newState();
    defer remove(b);
    if (py.minor() < first_minor) return unknown(stores.find(a, b) orelse "");
    defer if (py.PyThreadState_Get() != own) {
        _ = py.PyThreadState_Swap(own);
    };
    var left: u32 = tries;
    while (true) {
        left -= 1;
        if (lookOnce(own, a, b)) |w| return w else |e| if (e == error.Raised or left == 0) return e;
        swap.in_use = false;
        _ = py.PyThreadState_Swap(own);
    }
}

fn lookOnce(own: State, a: State, b: State) Error!swap.Way {
    var w: swap.Way = .{};
    const data = os.segments.of(@intFromPtr(host.interpreter)) orelse
        return unknown("the interpreter's data is not a library's");
    try findThreadWords(&w, data.thread_local, a, b);
    try findHolder(&w, data.end, a, b);
    try findFields(&w, a, b);
    _ = py.PyThreadState_Swap(own);
    const calls = try watchCall(own);
    w.pending = calls.counter;
    w.breaker = calls.breaker;
    _ = py.PyThreadState_Swap(a);
    try findRequest(&w, a, &calls);
    _ = py.PyThreadState_Swap(own);
    try prove(&w, own, a, b);
    return w;
}

fn newState() Error!State {
    const state = py.PyThreadState_New(host.interpreter) orelse {
        _ = py.PyErr_NoMemory();
        return error.Raised;
    };
    // Else it takes the thread's, which is slow to find out.
    const sp = arch.stackPointer();
    host.tellStack(state, .{ .lo = sp - 128 * 1024, .size = 256 * 1024 });
    return state;
}

/// It may have been the last holder, by a swap by hand.
fn remove(state: State) void {
    _ = py.PyThreadState_Swap(py.PyThreadState_Get());
    py.PyThreadState_Clear(state);
    py.PyThreadState_Delete(state);
}

// ---- what follows the swap ----

/// Addresses of words that have had each of the values they should.
const Followers = struct {
    items: [16]usize = undefined,
    len: usize = 0,

    fn of(from: usize, to: usize, value: usize) Followers {
        var f: Followers = .{};
        var at = std.mem.alignForward(usize, from, @sizeOf(usize));
        while (at + @sizeOf(usize) <= to) : (at += @sizeOf(usize)) {
            if (read(at) != value or f.len == f.items.len) continue;
            f.items[f.len] = at;
            f.len += 1;
        }
        return f;
    }

    fn keep(f: *Followers, value: usize) void {
        var left: usize = 0;
        for (f.items[0..f.len]) |at| {
            if (read(at) != value) continue;
            f.items[left] = at;
            left += 1;
        }
        f.len = left;
    }

    fn one(f: *const Followers) ?usize {
        return if (f.len == 1) f.items[0] else null;
    }
};

fn read(at: usize) usize {
    return @as(*const volatile usize, @ptrFromInt(at)).*;
}

fn findThreadWords(w: *swap.Way, block: []const usize, a: State, b: State) Error!void {
    const thread = arch.threadPointer();
    _ = py.PyThreadState_Swap(a);
    const from = @intFromPtr(block.ptr);
    var found: Followers = .of(from, from + block.len * @sizeOf(usize), @intFromPtr(a));
    _ = py.PyThreadState_Swap(b);
    found.keep(@intFromPtr(b));
    // Without the lock there is no current one, but still that of PyGILState.
    var current = found;
    var gilstate = found;
    _ = py.PyEval_SaveThread();
    current.keep(0);
    gilstate.keep(@intFromPtr(b));
    py.PyEval_RestoreThread(b);
    w.current = (current.one() orelse
        return unknown("the thread's current state was not found")) -% thread;
    if (gilstate.one()) |at| {
        w.gilstate = at -% thread;
        return;
    }
    w.slot = if (gilstate.len == 0) os.findSlot(b) else null;
    const slot = w.slot orelse return unknown("the thread's state for PyGILState was not found");
    _ = py.PyThreadState_Swap(a);
    if (os.slotGet(slot) != @as(?*anyopaque, a))
        return unknown("the thread's state for PyGILState was not found");
    // The C library has to set it if it keeps it elsewhere.
    w.gilstate = swap.findOwnWord(slot, b, a) orelse 0;
}

fn findHolder(w: *swap.Way, end: usize, a: State, b: State) Error!void {
    const from = @intFromPtr(host.interpreter);
    _ = py.PyThreadState_Swap(a);
    var found: Followers = .of(from, @min(end, from + most_data), @intFromPtr(a));
    for ([_]State{ b, a, b }) |state| {
        _ = py.PyThreadState_Swap(state);
        found.keep(@intFromPtr(state));
    }
    const holder = found.one() orelse return unknown("the lock's last holder was not found");
    w.last_holder = @ptrFromInt(holder);
}

fn words(state: State) Words {
    return @as(*const volatile Words, @ptrCast(@alignCast(state))).*;
}

fn findFields(w: *swap.Way, a: State, b: State) Error!void {
    _ = py.PyThreadState_Swap(b);
    const a_off = words(a);
    const b_on = words(b);
    _ = py.PyThreadState_Swap(a);
    const a_on = words(a);
    const b_off = words(b);
    _ = py.PyThreadState_Swap(b);
    const a_again = words(a);
    var count: usize = 0;
    for (0..state_words) |i| {
        const mask = a_on[i] ^ a_off[i];
        if (mask == 0 and b_on[i] == b_off[i]) continue;
        if (b_on[i] ^ b_off[i] != mask or
            a_again[i] != a_off[i] or (a_on[i] ^ b_on[i]) & mask != 0 or
            count ==
                w.fields.len) return unknown("thread states do not change as expected in a swap");
        w.fields[count] = .{ .at = i * @sizeOf(u64), .mask = mask, .on = a_on[i] & mask };
        count += 1;
    }
    if (count == 0) return unknown("thread states do not change in a swap");
    for (w.fields[count..]) |*f| f.at = w.fields[0].at;
}

// ---- what calls for the interpreter's swap ----

const Ints = [interpreter_bytes / @sizeOf(u32)]u32;

fn ints(address: usize) *const volatile Ints {
    return @ptrFromInt(address);
}

/// What a pending call has changed: counters, which it turned from 0 to 1 and its end back.
const Calls = struct {
    counter: *const u32,
    /// 3.12: where the interpreter's eval_breaker may be. Else that of a state.
    breaker: usize,
    others: [8]usize = undefined,
    count: usize = 0,
};

var calls_done: std.atomic.Value(u32) = .init(0);

fn onCall(_: ?*anyopaque) callconv(.c) c_int {
    _ = calls_done.fetchAdd(1, .monotonic);
    return 0;
}

/// Runs Python code, and so what is pending.
fn runCalls() Error!void {
    const done = calls_done.raw;
    const function = py.importFrom("golibx.patch.threads", "do_nothing") orelse return error.Raised;
    defer py.decref(function);
    py.decref(py.call(function, &.{}) orelse return error.Raised);
    if (calls_done.raw == done) return unknown("a pending call was not made");
}

var ints_before: Ints = undefined;

/// Which ints from `from` on a call made 1 and its end 0 again, and another call once more: it is
/// noted elsewhere, and counted at the same place.
fn watchInts(from: usize, len: usize, add: *const fn () bool, found: []usize) Error![]usize {
    const first = try watchIntsOnce(from, len, add, found);
    if (first.len == 0) return first;
    var buffer: [8]usize = undefined;
    const second = try watchIntsOnce(from, len, add, &buffer);
    var left: usize = 0;
    for (first) |at| {
        if (std.mem.indexOfScalar(usize, second, at) == null) continue;
        found[left] = at;
        left += 1;
    }
    return found[0..left];
}

fn watchIntsOnce(from: usize, len: usize, add: *const fn () bool, found: []usize) Error![]usize {
    const now = ints(from);
    for (ints_before[0..len], now[0..len]) |*old, value| old.* = value;
    if (!add()) return unknown("a pending call could not be added");
    var count: usize = 0;
    for (ints_before[0..len], 0..) |old, i| {
        if (old != 0 or now[i] != 1 or count == found.len) continue;
        found[count] = from + i * @sizeOf(u32);
        count += 1;
    }
    try runCalls();
    var left: usize = 0;
    for (found[0..count]) |at| {
        if (@as(*const volatile u32, @ptrFromInt(at)).* != 0) continue;
        found[left] = at;
        left += 1;
    }
    return found[0..left];
}

fn addCall() bool {
    const address = py.extra._PyEval_AddPendingCall orelse return false;
    const add: *const fn (
        *py.Interpreter,
        *const fn (?*anyopaque) callconv(.c) c_int,
        ?*anyopaque,
        c_int,
    ) callconv(.c) c_int =
        @ptrCast(@alignCast(address));
    const state: *const volatile Words = @ptrCast(@alignCast(py.PyThreadState_Get()));
    const before = state.*;
    if (add(host.interpreter, onCall, null, 0) != 0) return false;
    turned = .{};
    for (before, 0..) |old, i| {
        const change = state[i] ^ old;
        if (change != 0) turned = .{ .at = i, .change = change, .count = turned.count + 1 };
    }
    return true;
}

/// What adding a pending call has changed in the current state.
var turned: struct { at: usize = 0, change: u64 = 0, count: u32 = 0 } = .{};

fn watchCall(own: State) Error!Calls {
    var calls: Calls = .{ .counter = undefined, .breaker = undefined };
    const from = @intFromPtr(host.interpreter);
    std.debug.assert(py.PyThreadState_Get() == own);
    const found = try watchInts(from, interpreter_bytes / @sizeOf(u32), addCall, &calls.others);
    calls.count = found.len;
    if (py.minor() == 12) {
        // The interpreter's eval_breaker, and the number: one looks like the other for now.
        if (found.len == 0 or turned.count != 0)
            return unknown("what a pending call changes was not found");
        calls.counter = @ptrFromInt(found[0]);
        return calls;
    }
    if (found.len != 1 or turned.count != 1 or turned.change & ~@as(u64, events) != 0)
        return unknown("what a pending call changes was not found");
    calls.counter = @ptrFromInt(found[0]);
    calls.breaker = turned.at * @sizeOf(u64);
    return calls;
}

fn addMainCall() bool {
    return py.Py_AddPendingCall(onCall, null) == 0;
}

/// The number of calls that wait for the main thread, which is the calling one.
fn pendingOfMain() Error!*const u32 {
    const runtime =
        @intFromPtr(os.symbol("_PyRuntime") orelse return unknown("_PyRuntime is not exported"));
    const from = @intFromPtr(host.interpreter);
    if (runtime >= from or from - runtime > most_data)
        return unknown("the interpreter is not the main one");
    var found: [8]usize = undefined;
    var at = runtime;
    while (at < from) : (at += interpreter_bytes) {
        const len = @min(interpreter_bytes, from - at) / @sizeOf(u32);
        const here = try watchInts(at, len, addMainCall, &found);
        if (here.len == 1) return @ptrFromInt(here[0]);
        if (here.len > 1) break;
    }
    return unknown("the number of the main thread's pending calls was not found");
}

/// A thread that wants the lock, as long as it has to.
const Asker = struct {
    w: *const swap.Way,
    agrees: bool = false,
    thread: ?os.Thread = null,
    interval: ?*py.Object = null,

    fn run(raw: ?*anyopaque) void {
        const asker: *Asker = @ptrCast(@alignCast(raw.?));
        const had = py.PyGILState_Ensure();
        const state = py.PyThreadState_Get();
        const w = asker.w;
        const thread = arch.threadPointer();
        const gilstate: usize = if (w.gilstate != 0)
            read(thread +% w.gilstate)
        else
            @intFromPtr(os.slotGet(w.slot.?));
        asker.agrees = read(thread +% w.current) == @intFromPtr(state) and
            gilstate == @intFromPtr(state) and
            w.last_holder.* == state;
        py.PyGILState_Release(had);
    }

    /// It asks after one switch interval, which is a short one meanwhile.
    fn start(asker: *Asker) Error!void {
        asker.interval = try switchInterval(null);
        const quick = py.PyFloat_FromDouble(quick_interval_s) orelse return error.Raised;
        defer py.decref(quick);
        py.decref(try switchInterval(quick));
        asker.thread = os.spawn(run, asker, .{ .signals = .blocked }) catch {
            asker.stop();
            return unknown("there was no thread to try it with");
        };
    }

    fn stop(asker: *Asker) void {
        if (asker.thread) |t| {
            const state = py.PyEval_SaveThread();
            t.join();
            py.PyEval_RestoreThread(state.?);
        }
        const interval = asker.interval orelse return;
        defer py.decref(interval);
        if (switchInterval(interval)) |none| py.decref(none) else |_| py.PyErr_Clear();
    }
};

/// sys.getswitchinterval(), or with a value sys.setswitchinterval().
fn switchInterval(value: ?*py.Object) Error!*py.Object {
    const name = if (value == null) "getswitchinterval" else "setswitchinterval";
    const function = py.importFrom("sys", name) orelse return error.Raised;
    defer py.decref(function);
    const result = if (value) |v| py.call(function, &.{v}) else py.call(function, &.{});
    return result orelse error.Raised;
}

/// How a request for the lock looks; `a` is current.
fn findRequest(w: *swap.Way, a: State, calls: *const Calls) Error!void {
    var asker: Asker = .{ .w = w };
    const in_state = py.minor() != 12;
    const breaker = @intFromPtr(a) + calls.breaker;
    const before = if (in_state) read(breaker) else 0;
    // Where one asks already there is nothing to see.
    if (in_state and before & events != 0) return unknown("others ask for the lock all the time");
    if (!in_state) for (calls.others[0..calls.count]) |at| {
        if (@as(*const volatile u32, @ptrFromInt(at)).* != 0)
            return unknown("others ask for the lock all the time");
    };
    try asker.start();
    const until = os.nanotime() + patience_ns;
    var change: u64 = 0;
    while (change == 0 and os.nanotime() < until) {
        os.sleepNs(20 * std.time.ns_per_us);
        if (in_state) {
            change = read(breaker) ^ before;
        } else for (calls.others[0..calls.count]) |at| {
            if (@as(*const volatile u32, @ptrFromInt(at)).* == 0) continue;
            w.breaker = at;
            change += 1;
        }
    }
    asker.stop();
    if (!asker.agrees) return unknown("another thread keeps its state elsewhere");
    if (in_state) {
        if (@popCount(change) != 1 or change & ~@as(u64, events) != 0)
            return unknown("how the lock is asked for was not found");
        w.breaker = calls.breaker;
        w.breaker_in_state = std.math.maxInt(usize);
        w.request_mask = change;
        w.version_mask = ~@as(u64, events);
    } else {
        if (change != 1) return unknown("how the lock is asked for was not found");
        // An int that is not 0 when anything is pending. What lies beside it is another's.
        w.request_mask = std.math.maxInt(u32);
    }
}

// ---- proof ----

fn prove(w: *const swap.Way, own: State, a: State, b: State) Error!void {
    // What the interpreter's swaps leave.
    _ = py.PyThreadState_Swap(b);
    _ = py.PyThreadState_Swap(a);
    const a_on = words(a);
    const b_off = words(b);
    _ = py.PyThreadState_Swap(b);
    const a_off = words(a);
    const b_on = words(b);
    swap.way = w.*;
    swap.in_use = true;
    defer swap.in_use = false;
    // Requests that others make meanwhile are a reason to look again.
    if (!swap.byHand(a) or !agrees(a)) return unknown("a swap by hand does not do");
    if (!same(w, &a_on, a) or !same(w, &b_off, b))
        return unknown("a swap by hand leaves other states");
    if (!swap.byHand(b) or !agrees(b)) return unknown("a swap by hand does not do");
    if (!same(w, &a_off, a) or !same(w, &b_on, b))
        return unknown("a swap by hand leaves other states");
    const saved = py.PyEval_SaveThread();
    py.PyEval_RestoreThread(saved.?);
    if (saved != b or !swap.byHand(a) or !agrees(a)) return unknown("a swap by hand does not last");
    // A thread that asks for the lock finds the state that holds it.
    var asker: Asker = .{ .w = w };
    try asker.start();
    const until = os.nanotime() + patience_ns;
    const breaker: *const volatile u64 = w.breakerOf(a);
    while (breaker.* & w.request_mask == 0 and os.nanotime() < until)
        os.sleepNs(20 * std.time.ns_per_us);
    const is_seen = !swap.byHand(own);
    _ = py.PyThreadState_Swap(own);
    asker.stop();
    if (!is_seen or !asker.agrees)
        return unknown("a request for the lock is not seen after a swap by hand");
}

/// Whether the API takes it for the current one.
fn agrees(state: State) bool {
    return py.PyThreadState_Get() == state and py.PyGILState_GetThisThreadState() == state and
        py.extra.PyGILState_Check() == 1;
}

fn same(w: *const swap.Way, expected: *const Words, state: State) bool {
    const found = words(state);
    for (expected, found, 0..) |e, f, i| {
        const requests = w.breaker_in_state != 0 and w.breaker == i * @sizeOf(u64);
        if ((e ^ f) & ~@as(u64, if (requests) events else 0) != 0) return false;
    }
    return true;
}
