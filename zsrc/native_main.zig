//! The C ABI without Python: what C programs are linked with statically, such as
//! tests/native_stress.
const std = @import("std");

/// Threads of golibx bring their own alternate signal stack.
pub const std_options: std.Options = .{ .signal_stack_size = null };

comptime {
    _ = @import("capi/capi.zig");
}
