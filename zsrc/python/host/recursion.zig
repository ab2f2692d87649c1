//! RecursionError where a goroutine's stack ends, up to Python 3.13.
//!
//! Those versions limit recursion by counters that know nothing of the stack, and goroutines have
//! less of it than threads. From 3.14 on the interpreter compares the stack pointer with bounds
//! that it is told (host.tellStack), and nothing here is used.
//!
//! The lowest part of each stack, its reserve, faults on its first touch. The fault's handler opens
//! the touched page and those above it, and takes from the thread state's counter all that is left,
//! so that the interpreter's next check of it raises RecursionError, as at its own limit (3.13
//! needs to be left some at first: `trash_levels`). When the exception is made (`onNew` stands in
//! the type's slot while a run lasts) the counter gets back what was taken, and the pages below the
//! stack pointer fault again: code that catches it deep down and goes on gets another. `settle`
//! closes the rest once the stack is shallow.
//!
//! The counter is the goroutine's own, and the handler interrupts that goroutine's thread: at an
//! instruction that touches the stack for the first time so far down, a call's most likely. Code
//! that goes through the whole reserve without a check ends the process, as in a thread that runs
//! out of stack.
const std = @import("std");
const os = @import("../../os/os.zig");
const arch = @import("../../arch/arch.zig");
const g_mod = @import("../../serial/g.zig");
const stack_mod = @import("../../serial/stack.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// A goroutine's.
pub const Overflow = struct {
    /// Taken from the counter.
    taken: i32 = 0,
    /// From where on the reserve is open; 0 if none of it is.
    open_from: usize = 0,
    /// It is in the list of `settleAll`.
    listed: bool = false,
    next: ?*PyG = null,
};

/// Goroutines that have or had their reserve open. The handler of faults adds to it.
var open_list: std.atomic.Value(?*PyG) = .init(null);

/// What 3.13's deallocators need to be left: with 50 or less (Py_TRASHCAN_HEADROOM in object.h)
/// they put objects off, and code that deletes those then would do so for ever. So all is taken in
/// the lower half of the reserve only.
const trash_levels = 52;

/// Frames that are written below the stack pointer before anything can be settled.
const slack = 16 * 1024;

pub fn usable() bool {
    return os.opens_guards and host.mechanisms.recursion_offset != null and
        py.extra.PyUnstable_ThreadState_SetStackProtection == null;
}

pub fn counter(state: *py.ThreadState) ?*i32 {
    return @ptrFromInt(@intFromPtr(state) + (host.mechanisms.recursion_offset orelse return null));
}

/// Of a goroutine's stack, which lacks its guard.
pub fn sizeOfReserve(stack: g_mod.Stack) usize {
    if (!lane.options.stack_reserves) return 0;
    const sizes = [_]usize{ lane.options.stack_size, lane.options.stack_main_size };
    for (sizes) |size| {
        if (size - stack_mod.guardSize(size) == stack.size) return stack_mod.reserveSize(size);
    }
    return 0;
}

/// In the handler of faults. False if the address is none of the reserve's.
pub fn open(p: *PyG, address: usize) bool {
    const lo = p.g.stack.lo;
    const end = lo + sizeOfReserve(p.g.stack);
    if (address < lo or address >= end) return false;
    const from = std.mem.alignBackward(usize, address, os.page_size);
    const to = if (p.overflow.open_from == 0) end else p.overflow.open_from;
    // Open, and yet there was a fault.
    if (from >= to) return false;
    if (!os.unguard(@ptrFromInt(from), to - from)) return false;
    p.overflow.open_from = from;
    if (p.state) |state| {
        const left = counter(state).?;
        const leave: i32 = if (py.minor() == 13 and from >= lo + sizeOfReserve(p.g.stack) / 2)
            trash_levels
        else
            0;
        p.overflow.taken += @max(0, left.* - leave);
        left.* = @min(leave, left.*);
    }
    if (!p.overflow.listed) {
        p.overflow.listed = true;
        var head = open_list.load(.monotonic);
        while (true) {
            p.overflow.next = head;
            head = open_list.cmpxchgWeak(head, p, .release, .monotonic) orelse break;
        }
    }
    lane.attention.store(true, .release);
    return true;
}

/// Closes the goroutine's reserve below where its stack is now. With the lock.
pub inline fn settle(p: *PyG) void {
    if (p.overflow.open_from != 0) close(p);
}

noinline fn close(p: *PyG) void {
    const stack = p.g.stack;
    closeBelow(p, stack);
    // While most of it is used up, the depth at which that happened is the limit.
    if (p.overflow.open_from == 0 or p.overflow.open_from > stack.lo + sizeOfReserve(stack) / 2)
        giveBack(p);
}

fn closeBelow(p: *PyG, stack: g_mod.Stack) void {
    const sp = if (stack.contains(arch.stackPointer())) arch.stackPointer() else p.g.sp;
    // It runs elsewhere, on a stack of another library's.
    if (!stack.contains(sp)) return;
    const from = p.overflow.open_from;
    const end = stack.lo + sizeOfReserve(stack);
    const to = @min(end, std.mem.alignBackward(usize, sp -| slack, os.page_size));
    if (to <= from) return;
    os.discard(@ptrFromInt(from), to - from);
    os.guard(@ptrFromInt(from), to - from) catch return;
    p.overflow.open_from = if (to == end) 0 else to;
}

/// Of all goroutines that do not run, or are about to give way. With the lock.
pub fn settleAll() void {
    if (open_list.load(.monotonic) == null) return;
    var it = open_list.swap(null, .acquire);
    while (it) |p| {
        it = p.overflow.next;
        p.overflow.listed = false;
        const runs = p.g.m != null and !p.g.stack.contains(arch.stackPointer());
        if (!runs) settle(p);
        if (p.overflow.open_from == 0) continue;
        p.overflow.listed = true;
        var head = open_list.load(.monotonic);
        while (true) {
            p.overflow.next = head;
            head = open_list.cmpxchgWeak(head, p, .release, .monotonic) orelse break;
        }
    }
}

fn giveBack(p: *PyG) void {
    if (p.overflow.taken == 0) return;
    if (p.state) |state| counter(state).?.* += p.overflow.taken;
    p.overflow.taken = 0;
}

// ---- the exception ----

var plain_new: @FieldType(py.Slots, "tp_new") = null;

/// Has the making of a RecursionError noticed, or no longer.
pub fn watch(on: bool) void {
    if (!usable()) return;
    const t: *py.Type = @ptrCast(py.exc.recursionError());
    if (on and plain_new == null) plain_new = py.getSlot(t, "tp_new");
    const plain = plain_new orelse return;
    py.replaceSlot(t, "tp_new", if (on) plain else onNew, if (on) onNew else plain);
}

fn onNew(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (lane.onThread()) |g| settle(goroutine.of(g));
    return plain_new.?(t, args, kwargs);
}
