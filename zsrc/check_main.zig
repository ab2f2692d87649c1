//! The root of `zig build check`, here because a program may import only what lies below its root.
const program = @import("check/main.zig");

pub const main = program.main;
pub const panic = program.panic;
