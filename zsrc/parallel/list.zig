//! The native goroutines that there are, for dumps. They are looked at while they run: each field
//! is right by itself, as it was a moment ago. Their memory stays where it is as long as the lane
//! runs.
const std = @import("std");
const WaitReason = @import("../serial/g.zig").WaitReason;
const lane = @import("lane.zig");
const types = @import("types.zig");

pub const Entry = struct {
    id: u64,
    status: types.GStatus,
    reason: WaitReason,
    /// Addresses of the start function and its argument.
    function: usize,
    arg: usize,
    locked: bool,

    /// What it does, as dumps say it.
    pub fn state(e: Entry) [:0]const u8 {
        return switch (e.status) {
            .idle, .dead => "done",
            .runnable => "runnable",
            .running => "running",
            .syscall => "syscall",
            .preempted => "runnable (preempted)",
            .waiting => if (e.reason == .none) "waiting" else e.reason.text(),
        };
    }
};

pub const Iterator = struct {
    at: usize = 0,

    pub fn next(it: *Iterator) ?Entry {
        if (!lane.running()) return null;
        const end = @atomicLoad(usize, &lane.arena.fresh, .acquire);
        while (it.at < end) {
            const g = lane.arena.at(it.at);
            it.at += 1;
            const status = g.status.load(.acquire);
            if (status == .idle or status == .dead) continue;
            const id = @atomicLoad(u64, &g.id, .monotonic);
            const function = @atomicLoad(
                usize,
                @as(*const usize, @ptrCast(&g.start.function)),
                .monotonic,
            );
            // Its memory is used already, but it has not been started.
            if (id == 0 or function == 0) continue;
            return .{
                .id = id,
                .status = status,
                .reason = @atomicLoad(WaitReason, &g.reason, .monotonic),
                .function = function,
                .arg = @atomicLoad(usize, @as(*const usize, @ptrCast(&g.start.arg)), .monotonic),
                .locked = @atomicLoad(u32, &g.lock_count, .monotonic) > 0,
            };
        }
        return null;
    }
};
