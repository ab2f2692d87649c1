//! Where native preemption is not built yet: goroutines give way at calls of golibx only.
const lane = @import("lane.zig");
const Interrupted = @import("interrupt.zig").Interrupted;

pub const name = "none";

pub fn install(_: *const fn (*lane.M, Interrupted) bool) void {}
pub fn remove() void {}
pub fn enterThread(_: *lane.M) void {}
pub fn leaveThread(_: *lane.M) void {}
pub fn bringHere(_: *lane.M) void {}
pub fn letMove(_: *lane.M) void {}
pub fn rest(_: *lane.M) void {}

pub fn signal(_: *lane.M) bool {
    return false;
}

pub fn signalNumber() u8 {
    return 0;
}
