//! What ThreadSanitizer has to be told: which context a thread runs. Without it, nothing at all.
//!
//! Each goroutine is a fiber of its own, and so is g0 of each M. A switch is a synchronization,
//! since what an M and its P hold is handed from one context to the next without atomics. A fiber
//! belongs to the memory of its goroutine and lives as long as that; TSan knows 8000 of them at
//! most.
const builtin = @import("builtin");

const on = builtin.sanitize_thread;

pub const Fiber = if (on) ?*anyopaque else void;
pub const none: Fiber = if (on) null else {};

extern fn __tsan_get_current_fiber() ?*anyopaque;
extern fn __tsan_create_fiber(flags: c_uint) ?*anyopaque;
extern fn __tsan_switch_to_fiber(fiber: ?*anyopaque, flags: c_uint) void;

/// The thread's own context.
pub inline fn thread() Fiber {
    return if (on) __tsan_get_current_fiber() else {};
}

pub inline fn create(fiber: *Fiber) void {
    if (on and fiber.* == null) fiber.* = __tsan_create_fiber(0);
}

/// Right before the switch of stacks.
pub inline fn switchTo(fiber: Fiber) void {
    if (on) __tsan_switch_to_fiber(fiber, 0);
}
