//! What the machine and its user say about processors and text: GOMAXPROCS, the kill switch of
//! preemption, and where the code of a program or library lies.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../os/os.zig");
const proc = @import("proc.zig");
const Range = @import("text.zig").Range;

pub const most = proc.most_procs;

/// As if no variable was set.
pub var ignores_environment = false;

fn variable(name: [*:0]const u8) ?[]const u8 {
    if (ignores_environment) return null;
    return std.mem.span(std.c.getenv(name) orelse return null);
}

/// GOMAXPROCS, or else the CPUs this process may use: its affinity, and the quota of its control
/// group, rounded up, but no less than 2, as Go does since 1.25.
pub fn default() u32 {
    if (variable("GOMAXPROCS")) |text| {
        const n = std.fmt.parseInt(u32, text, 10) catch 0;
        if (n > 0) return @min(n, most);
    }
    const cpus: u32 = @intCast(@min(os.cpuCount(), most));
    const quota = os.cpuQuota() orelse return cpus;
    return @min(cpus, @max(2, quota));
}

/// GOLIB_ASYNCPREEMPT_OFF=1 turns preemption by signals off.
pub fn asyncPreemptOff() bool {
    const text = variable("GOLIB_ASYNCPREEMPT_OFF") orelse return false;
    return std.mem.eql(u8, text, "1");
}

/// The executable parts of the program or library that holds `address`; how many there are.
pub fn moduleText(address: usize, out: []Range) usize {
    if (builtin.os.tag != .linux) return 0;
    var search: Search = .{ .address = address, .out = out };
    _ = std.c.dl_iterate_phdr(Search.look, &search);
    return search.found;
}

const Search = struct {
    address: usize,
    out: []Range,
    found: usize = 0,

    fn look(info: *std.c.dl_phdr_info, _: usize, data: ?*anyopaque) callconv(.c) c_int {
        const s: *Search = @ptrCast(@alignCast(data.?));
        var holds = false;
        var n: usize = 0;
        for (info.phdr[0..info.phnum]) |header| {
            if (header.type != .LOAD or !header.flags.X) continue;
            const start = info.addr + header.vaddr;
            const range: Range = .{ .start = start, .end = start + header.memsz };
            if (n == s.out.len) break;
            s.out[n] = range;
            n += 1;
            holds = holds or (range.start <= s.address and s.address < range.end);
        }
        // Data of the module names it too.
        for (info.phdr[0..info.phnum]) |header| {
            const start = info.addr + header.vaddr;
            if (header.type == .LOAD and start <= s.address and s.address < start + header.memsz)
                holds = true;
        }
        if (!holds) return 0;
        s.found = n;
        return 1;
    }
};

test "the text of this program holds this function" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    var ranges: [16]Range = undefined;
    const at = @intFromPtr(&default);
    for (ranges[0..moduleText(at, &ranges)]) |each| {
        if (each.start <= at and at < each.end) return;
    }
    return error.NotFound;
}
