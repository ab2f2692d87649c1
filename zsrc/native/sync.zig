//! Mutex, Cond, WaitGroup and Semaphore as the library has them: what golibx.h declares as memory
//! of zeroes.
const std = @import("std");
const lane = @import("lane.zig");
const primitives = @import("primitives.zig");

pub const Error = primitives.Error;

const all = primitives.Primitives(lane.switching.Rt);
pub const Mutex = all.Mutex;
pub const Cond = all.Cond;
pub const WaitGroup = all.WaitGroup;
pub const Semaphore = all.Semaphore;

/// Lets go of a lock once the context of who waits is saved.
pub const unlockGuard = all.unlockGuard;

comptime {
    for (.{ Mutex, Cond, WaitGroup, Semaphore }) |T|
        std.debug.assert(@sizeOf(T) == 32 and @alignOf(T) == 8);
}
