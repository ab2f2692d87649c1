//! Descriptors that are golibx's own: the pollers', the ones that wake them, a socket for dumps.
//!
//! Programs close what they have not opened: those that become daemons close every number. The code
//! that closes descriptors for Python (python/host/descriptors.zig) asks here first, and behaves as
//! if these were not open. If C code closes one, the next system call on it finds that out.
const std = @import("std");

const most = 16;
var kept: [most]std.atomic.Value(i32) = @splat(.init(-1));

/// One too many is not kept, and no worse off than before.
pub fn keep(fd: i32) void {
    for (&kept) |*place| {
        if (place.cmpxchgStrong(-1, fd, .monotonic, .monotonic) == null) return;
    }
}

/// Before it is closed.
pub fn release(fd: i32) void {
    for (&kept) |*place| {
        if (place.cmpxchgStrong(fd, -1, .monotonic, .monotonic) == null) return;
    }
}

pub fn isKept(fd: i32) bool {
    for (&kept) |*place| {
        if (place.load(.monotonic) == fd) return fd >= 0;
    }
    return false;
}

/// The lowest from `low` on.
pub fn firstKept(low: i32) ?i32 {
    var found: ?i32 = null;
    for (&kept) |*place| {
        const fd = place.load(.monotonic);
        if (fd >= @max(low, 0) and (found == null or fd < found.?)) found = fd;
    }
    return found;
}

/// In the child of a fork, where they are the parent's, and closing them is right.
pub fn forget() void {
    for (&kept) |*place| place.store(-1, .monotonic);
}

test "descriptors that are kept are found in order" {
    defer forget();
    keep(9);
    keep(5);
    try std.testing.expect(isKept(9) and !isKept(6) and !isKept(-1));
    try std.testing.expectEqual(5, firstKept(0));
    try std.testing.expectEqual(9, firstKept(6));
    release(9);
    try std.testing.expectEqual(null, firstKept(6));
}
