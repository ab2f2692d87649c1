//! Mutex, Cond, WaitGroup and Semaphore as the library has them: what golibx.h declares as 32 bytes
//! of memory of zeroes.
const std = @import("std");
const Rt = @import("../parallel/lane.zig").switching.Rt;

pub const Mutex = @import("../sync/mutex.zig").Mutex(Rt);
pub const Cond = @import("../sync/cond.zig").Cond(Rt);
pub const WaitGroup = @import("../sync/waitgroup.zig").WaitGroup(Rt);
pub const Semaphore = @import("../sync/semaphore.zig").Semaphore(Rt, false);

comptime {
    for (.{ Mutex, Cond, WaitGroup, Semaphore }) |T|
        std.debug.assert(@sizeOf(T) <= 32 and @alignOf(T) <= 8);
}
