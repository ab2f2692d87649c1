//! The swap of thread states, without the interpreter's lock changing hands. Linux, x86-64, 3.12
//! on; for 3.11, where that is simple, see swap_stores.zig.
//!
//! From 3.12 on PyThreadState_Swap lets the lock go and takes it again: two mutexes, a wake-up in
//! vain for a thread that waits, and that thread's switch interval begins anew. What it comes to
//! while the lock stays where it is, on the same thread, is little (Python/pystate.c and
//! ceval_gil.c):
//!  - the thread's words for the current thread state and the one of PyGILState (from 3.14 on both
//!    are thread-local data; before, the second is in a thread-specific slot, which glibc keeps
//!    among the thread's own data too);
//!  - in both states, that they are attached, hold the lock and are PyGILState's: `active`,
//!    `bound_gilstate`, from 3.13 on `holds_gil` and `state`;
//!  - the lock's last holder, by which other threads find the one to ask for it;
//!  - from 3.13 on, in the new state's eval_breaker, the version of the instrumentation. The
//!    running state has the present one.
//! Where all that is, swap_find.zig finds out by experiment; `[runtime] swap` can forbid it.
//! The interpreter does the swap where more than that has to be done:
//!  - A thread asks for the lock: then it really changes hands. It asks the holder that it sees,
//!    and may come too late, while that one is being switched out; then the request is found when
//!    it is the new state (`askedLate`). It must not stay there unseen: a state that gives the lock
//!    up on request waits until another thread has taken it, and perhaps no thread wants it any
//!    more.
//!  - Calls are pending: only a state that takes the lock is told of them.
//!  - Either state isn't as expected: 3.14 marks those that must not run any more when it ends.
//!  - A state is about to be deleted (`doomed`). A thread that waits for the lock reads the last
//!    holder and writes to it under the lock's mutex. So a state that has been the last holder may
//!    be deleted only when that mutex has been taken since: by the interpreter's own swap away from
//!    it, or by `settle`.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const arch = @import("../../arch/arch.zig");
const py = @import("../py.zig");
const stores = @import("swap_stores.zig");

pub const supported = os.segments.supported and builtin.cpu.arch == .x86_64;

/// Bits of one word of a thread state: `on` while it is the current one, the opposite otherwise.
pub const Field = extern struct {
    at: usize = 0,
    mask: u64 = 0,
    on: u64 = 0,

    inline fn word(f: *const Field, state: *py.ThreadState) *u64 {
        return @ptrFromInt(@intFromPtr(state) +% f.at);
    }

    /// Not 0 where one of the two is not as it has to be before a swap.
    inline fn unusual(f: *const Field, before: *py.ThreadState, next: *py.ThreadState) u64 {
        return ((f.word(before).* ^ f.on) | (f.word(next).* ^ ~f.on)) & f.mask;
    }

    /// sysmon reads it.
    inline fn turn(f: *const Field, state: *py.ThreadState) void {
        const its = f.word(state);
        @atomicStore(u64, its, @atomicLoad(u64, its, .unordered) ^ f.mask, .unordered);
    }
};

pub const Way = struct {
    /// From the thread pointer. 0 for a slot that the C library has to set.
    current: usize = 0,
    gilstate: usize = 0,
    /// Before 3.14. Each thread's has been set by the interpreter when it took the lock.
    slot: ?os.Slot = null,
    fields: [2]Field = @splat(.{}),
    /// Where a state's eval_breaker is: with all bits of `breaker_in_state` it is an offset, with
    /// none the address of the interpreter's (3.12).
    breaker: usize = 0,
    breaker_in_state: usize = 0,
    /// Its bits that call for the interpreter's swap, and those of the version.
    request_mask: u64 = 0,
    version_mask: u64 = 0,
    last_holder: *?*py.ThreadState = undefined,
    /// The numbers of pending calls, of any thread and of the main one.
    pending: *const u32 = &nothing,
    pending_main: *const u32 = &nothing,

    pub inline fn breakerOf(w: *const Way, state: *py.ThreadState) *u64 {
        return @ptrFromInt(w.breaker +% (@intFromPtr(state) & w.breaker_in_state));
    }
};

const nothing: u32 = 0;

/// What was found; null where the interpreter does all swaps.
pub var known: ?Way = null;
/// Why there is none.
pub var reason: [:0]const u8 = "";
/// For the present run. Under the lock.
pub var way: Way = .{};
pub var in_use = false;
/// Why the present run does without.
var unused_for: [:0]const u8 = "";
/// States that will be deleted once they have been switched out.
pub var doomed: u32 = 0;

/// Makes `next` the current state. False where the interpreter has to do it. With the lock.
pub inline fn byHand(next: *py.ThreadState) bool {
    return supported and in_use and exchange(next);
}

/// Inlined into the caller that switches: a frame of its own would be one cache line more of each
/// stack.
inline fn exchange(next: *py.ThreadState) bool {
    const w = &way;
    const thread = arch.threadPointer();
    const current: **py.ThreadState = @ptrFromInt(thread +% w.current);
    const before = current.*;
    const breaker = @atomicLoad(u64, w.breakerOf(before), .monotonic);
    const next_breaker = @atomicLoad(u64, w.breakerOf(next), .monotonic);
    const unusual = w.fields[0].unusual(before, next) | w.fields[1].unusual(before, next) |
        ((breaker | next_breaker) & w.request_mask) |
        @atomicLoad(u32, w.pending, .monotonic) |
        @atomicLoad(u32, w.pending_main, .monotonic) | doomed;
    if (unusual != 0) {
        @branchHint(.unlikely);
        return false;
    }
    if ((breaker ^ next_breaker) & w.version_mask != 0) takeVersion(next, breaker);
    // Where there is one field only, the second is the same without any bit.
    w.fields[1].turn(before);
    w.fields[1].turn(next);
    w.fields[0].turn(before);
    w.fields[0].turn(next);
    @atomicStore(?*py.ThreadState, w.last_holder, next, .monotonic);
    if (w.gilstate != 0) {
        @as(**py.ThreadState, @ptrFromInt(thread +% w.gilstate)).* = next;
    } else os.slotSet(w.slot.?, next);
    current.* = next;
    return true;
}

/// Requests may come at any time: they stay.
noinline fn takeVersion(next: *py.ThreadState, breaker: u64) void {
    const word = way.breakerOf(next);
    var seen = @atomicLoad(u64, word, .monotonic);
    while (true) {
        const value = (seen & ~way.version_mask) | (breaker & way.version_mask);
        seen = @cmpxchgWeak(u64, word, seen, value, .monotonic, .monotonic) orelse return;
    }
}

/// Whether a thread asked `next` for the lock when it was no longer its holder.
pub fn askedLate(next: *py.ThreadState) bool {
    if (!in_use or way.breaker_in_state == 0) return false;
    const breaker = @atomicLoad(u64, way.breakerOf(py.PyThreadState_Get()), .monotonic);
    const next_breaker = @atomicLoad(u64, way.breakerOf(next), .monotonic);
    return next_breaker & ~breaker & way.request_mask != 0;
}

/// States that have been the last holder may be deleted when this returns. Others may have had the
/// lock meanwhile.
pub fn settle() void {
    if (in_use) py.PyEval_RestoreThread(py.PyEval_SaveThread().?);
}

/// Before a run, on its thread and with the lock: whether what was found still holds. In the child
/// of a fork the slot is a new one.
pub fn setUp(wanted: bool) void {
    in_use = false;
    unused_for = if (wanted) "the interpreter's memory is not as it was" else "runtime.swap";
    stores.setUp(wanted);
    if (!supported or !wanted) return;
    way = known orelse return;
    const state = py.PyThreadState_Get();
    if (way.slot) |*slot| {
        if (os.slotGet(slot.*) != @as(?*anyopaque, state)) {
            slot.* = os.findSlot(state) orelse return;
            way.gilstate = 0;
        }
    }
    in_use = way.last_holder.* == state and isHere(state);
}

/// For `golibx info`: why the interpreter does all swaps of the present run, or would of one; null
/// where it doesn't.
pub fn whyNot(is_live: bool) ?[:0]const u8 {
    if (if (is_live) stores.in_use else stores.known != null) return null;
    if (is_live and !in_use) return if (known == null and reason.len > 0) reason else unused_for;
    return if (known == null) reason else null;
}

/// On a new thread of the runtime's, which has just attached `state`: its thread-local data may lie
/// elsewhere, where the interpreter was loaded late.
pub inline fn check(state: *py.ThreadState) void {
    stores.check();
    if (!supported or !in_use or isHere(state)) return;
    in_use = false;
    unused_for = "another thread keeps its state elsewhere";
}

fn isHere(state: *py.ThreadState) bool {
    const thread = arch.threadPointer();
    const current: *const ?*py.ThreadState = @ptrFromInt(thread +% way.current);
    if (current.* != state) return false;
    // A slot's word is not known by its place in a library's data.
    if (way.slot == null or way.gilstate == 0) return true;
    return @as(*const ?*py.ThreadState, @ptrFromInt(thread +% way.gilstate)).* == state;
}

/// Of what the C library has at the thread pointer. In glibc's 2304 bytes the first 32 slots are
/// those from 784 to 1296.
const own_words = 1536 / @sizeOf(usize);

/// Where among the thread's own data the C library keeps a slot, as an offset from the thread
/// pointer: the one word that had `a` and has `b` when the slot has. Null if it keeps it elsewhere.
pub fn findOwnWord(slot: os.Slot, a: *py.ThreadState, b: *py.ThreadState) ?usize {
    const thread = arch.threadPointer();
    const before = os.slotGet(slot);
    defer os.slotSet(slot, before);
    os.slotSet(slot, a);
    var own: [own_words]usize = undefined;
    if (!os.peek(thread, std.mem.asBytes(&own))) return null;
    os.slotSet(slot, b);
    var found: ?usize = null;
    for (own, 0..) |word, i| {
        const now: *const volatile usize = @ptrFromInt(thread + i * @sizeOf(usize));
        if (word != @intFromPtr(a) or now.* != @intFromPtr(b)) continue;
        if (found != null) return null;
        found = i * @sizeOf(usize);
    }
    return found;
}
