//! The swap of thread states on 3.11, without a call. Linux, x86-64.
//!
//! There PyThreadState_Swap stores a word of the interpreter's, and does nothing else. PyGILState
//! goes by a thread-specific slot, which golibx has to set at each switch (host.zig). glibc keeps
//! that among the thread's own data. So a swap is two stores, and the two calls took ten times as
//! many instructions.
//!
//! Which words they are is found out once in a process, at the first run: they have to follow swaps
//! of the interpreter's, no others may, and in the end the API has to agree on what two stores
//! have left, on another thread too. `[runtime] swap` can forbid it.
const std = @import("std");
const os = @import("../../os/os.zig");
const arch = @import("../../arch/arch.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const swap = @import("swap.zig");

const State = *py.ThreadState;

const Words = struct {
    current: *?State = undefined,
    /// From the thread pointer. 0 where the C library has to set the slot.
    slot: usize = 0,
};

/// What was found; null where there is nothing.
pub var known: ?Words = null;
/// For the present run. Under the lock.
pub var in_use = false;
var words: Words = .{};

/// With the lock, and only if it is in use.
pub inline fn exchange(next: State) void {
    // sysmon asks for it, and so does a thread that takes the lock.
    @atomicStore(?State, words.current, next, .monotonic);
    if (words.slot == 0) return os.slotSet(host.mechanisms.gilstate_slot.?, next);
    own(words.slot).* = next;
}

inline fn own(offset: usize) *?State {
    return @ptrFromInt(arch.threadPointer() +% offset);
}

/// Before a run, on its thread and with the lock: whether what was found still holds. In the child
/// of a fork the slot is a new one.
pub fn setUp(wanted: bool) void {
    in_use = false;
    if (!wanted or host.mechanisms.gilstate_slot == null) return;
    words = known orelse return;
    if (words.current.* != py.PyThreadState_Get()) return;
    in_use = true;
    check();
}

/// On each thread, which has just taken the lock: the slot's word may lie elsewhere, or have never
/// been set there.
pub inline fn check() void {
    if (in_use and words.slot != 0) checkSlot();
}

noinline fn checkSlot() void {
    const value = os.slotGet(host.mechanisms.gilstate_slot.?);
    if (value == null or own(words.slot).* != @as(?State, @ptrCast(value))) words.slot = 0;
}

/// In the child of a fork.
pub fn forget() void {
    in_use = false;
}

/// `a` and `b` are two new states. With the lock, which the interpreter's swaps do not let go.
/// Returns why there is no way; null if it is `known`.
pub fn find(a: State, b: State) ?[:0]const u8 {
    const slot = host.mechanisms.gilstate_slot orelse
        return "the thread's state for PyGILState was not found";
    const before = py.PyThreadState_Get();
    defer _ = host.exchange(before);
    words = .{
        .current = findCurrent(a, b) orelse return "the current state was not found",
        .slot = swap.findOwnWord(slot, a, b) orelse 0,
    };
    _ = host.exchange(b);
    for ([_]State{ a, b, a }) |state| {
        exchange(state);
        if (!agrees(state)) return "a swap by hand does not do";
    }
    const saved = py.PyEval_SaveThread();
    py.PyEval_RestoreThread(saved.?);
    if (saved != a or !agrees(a)) return "a swap by hand does not last";
    known = words;
    return null;
}

fn agrees(state: State) bool {
    return py.PyThreadState_Get() == state and py.PyGILState_GetThisThreadState() == state and
        py.extra.PyGILState_Check() == 1;
}

/// The one word of the runtime's data that follows swaps.
fn findCurrent(a: State, b: State) ?*?State {
    const runtime = @intFromPtr(os.symbol("_PyRuntime") orelse return null);
    const data = os.segments.of(runtime) orelse return null;
    const from = std.mem.alignForward(usize, runtime, @sizeOf(usize));
    const to = @min(data.end, from + most_data);
    var found: ?*?State = null;
    var at = from;
    _ = host.exchange(a);
    while (at + @sizeOf(usize) <= to) : (at += @sizeOf(usize)) {
        const word: *volatile ?State = @ptrFromInt(at);
        if (word.* != a) continue;
        var follows = true;
        for ([_]State{ b, a, b, a }) |state| {
            _ = host.exchange(state);
            follows = follows and word.* == state;
        }
        if (!follows) continue;
        if (found != null) return null;
        found = @volatileCast(word);
    }
    return found;
}

const most_data = 4 << 20;
