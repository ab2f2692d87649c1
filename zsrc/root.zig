//! What the library exports, and nothing else: the extension module's entry point, and the C ABI.
const std = @import("std");

/// Threads of golibx bring their own alternate signal stack.
pub const std_options: std.Options = .{ .signal_stack_size = null };

export fn PyInit__core() ?*anyopaque {
    return @import("python/module.zig").init();
}

comptime {
    _ = @import("capi/capi.zig");
}
