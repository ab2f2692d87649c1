//! What the lock-free parts of the native lane take from the machine.
const env = @import("../os/env.zig");

pub const Real = env.Real;
pub const SpinLock = env.SpinLock;
