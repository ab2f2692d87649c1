//! Whether code lies at an address, by the kernel's list of what the process has mapped: code of
//! libraries, and what compilers and libffi have made in memory of their own.
const std = @import("std");
const linux = std.os.linux;

/// Whether there is executable memory. Null where the kernel does not say.
pub fn isAt(address: usize) ?bool {
    const opened = linux.open("/proc/self/maps", .{ .CLOEXEC = true }, 0);
    if (linux.errno(opened) != .SUCCESS) return null;
    const fd: i32 = @intCast(opened);
    defer _ = linux.close(fd);
    var buffer: [8192]u8 = undefined;
    var have: usize = 0;
    // A line that is longer than the buffer, by its file's name, has its beginning looked at.
    var skips = false;
    while (true) {
        const n = linux.read(fd, buffer[have..].ptr, buffer.len - have);
        if (linux.errno(n) == .INTR) continue;
        if (linux.errno(n) != .SUCCESS) return null;
        if (n == 0) return false;
        have += n;
        var rest = buffer[0..have];
        while (std.mem.findScalar(u8, rest, '\n')) |end| {
            if (!skips and holds(rest[0..end], address)) return true;
            skips = false;
            rest = rest[end + 1 ..];
        }
        if (rest.len == buffer.len) {
            if (!skips and holds(rest, address)) return true;
            skips = true;
            rest = rest[rest.len..];
        }
        std.mem.copyForwards(u8, &buffer, rest);
        have = rest.len;
    }
}

/// A line: "start-end rwxp ...", the addresses in hexadecimal.
fn holds(line: []const u8, address: usize) bool {
    const dash = std.mem.findScalar(u8, line, '-') orelse return false;
    const space = std.mem.findScalarPos(u8, line, dash, ' ') orelse return false;
    if (line.len < space + 4 or line[space + 3] != 'x') return false;
    const start = std.fmt.parseInt(usize, line[0..dash], 16) catch return false;
    const end = std.fmt.parseInt(usize, line[dash + 1 .. space], 16) catch return false;
    return address >= start and address < end;
}

test "a function is code, and what lies on the stack, at null and one is not" {
    var on_stack: usize = 0;
    _ = &on_stack;
    try std.testing.expectEqual(true, isAt(@intFromPtr(&isAt)));
    try std.testing.expectEqual(true, isAt(@intFromPtr(&std.c.getpid)));
    for ([_]usize{ 0, 1, @intFromPtr(&on_stack), std.math.maxInt(usize) }) |address|
        try std.testing.expectEqual(false, isAt(address));
}
