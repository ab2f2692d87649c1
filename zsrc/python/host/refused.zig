//! Goroutines for which there was no memory when they had to start: they end before they began, as
//! others do that raised.
//!
//! The lane finds out in the middle of a switch, where no Python code may run, and their ends run a
//! lot of it: destructors of arguments, and what a scope or an executor wants to be told. That code
//! may wait, so it needs a goroutine, and this a stack: the ender has one of its own, made when it
//! is first needed. If there is no memory even for that, g0 runs the ends, as it runs signal
//! handlers.
const g_mod = @import("../../serial/g.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// As that of other goroutines: destructors may be any code.
const stack_size = 1 << 20;

/// Linked by `next_free`, in the order in which they were refused.
var waiting: ?*PyG = null;
var last: *PyG = undefined;
/// From its start to the end of its function.
var ender: ?*PyG = null;
var ender_refused = false;
pub var ender_stack: g_mod.Stack = .{};
var stack_used = false;

/// In the middle of a switch.
pub fn add(p: *PyG) void {
    if (p == ender) {
        ender = null;
        ender_refused = true;
    }
    p.next_free = null;
    if (waiting == null) waiting = p else last.next_free = p;
    last = p;
}

/// On g0, with the lock.
pub fn attend() void {
    // An ender finds them; and so does `endRun`, if one of them is the main goroutine.
    if (waiting == null or ender != null or lane.main_done) return;
    const here = ender_refused;
    ender_refused = false;
    if (here or !launchEnder()) endAll();
}

/// With the lock, where Python code may run.
pub fn endAll() void {
    while (waiting) |p| {
        waiting = p.next_free;
        goroutine.endRefused(p);
    }
}

fn launchEnder() bool {
    if (ender_stack.size == 0) ender_stack = goroutine.makeStack(stack_size) catch return false;
    defer py.PyErr_Clear();
    const function = py.importFrom("golibx._core", "_end_refused") orelse return false;
    defer py.decref(function);
    const p = goroutine.create(function, &[0]*py.Object{}, 0, null, true) catch return false;
    p.handle.collected = true;
    // Making it may have run code, and the run may have ended meanwhile.
    if (!lane.live) {
        goroutine.abandon(p);
        return false;
    }
    ender = p;
    py.decref(goroutine.launch(p));
    return true;
}

/// _end_refused(): what the ender runs.
pub fn run() void {
    endAll();
    ender = null;
}

/// The stack of `p`, if it is the ender and that is free.
pub fn takeStack(p: *PyG) ?g_mod.Stack {
    if (p != ender or stack_used) return null;
    stack_used = true;
    return ender_stack;
}

/// Whether the stack is the ender's, which is left.
pub fn leaveStack(stack: g_mod.Stack) bool {
    if (stack.lo != ender_stack.lo) return false;
    stack_used = false;
    return true;
}

/// With the lock, after a run: ends those that are left.
pub fn endRun() void {
    ender = null;
    endAll();
    forget();
}

/// A stack that is in use stays as it is.
pub fn forget() void {
    if (stack_used) ender_stack = .{};
    stack_used = false;
    ender = null;
    ender_refused = false;
    waiting = null;
}
