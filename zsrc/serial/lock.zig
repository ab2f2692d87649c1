//! A short spin lock for lists that are touched for a few instructions; it sleeps when contended.
const std = @import("std");
const os = @import("../os/os.zig");

pub const Lock = struct {
    word: std.atomic.Value(u32) = .init(0),

    pub fn lock(l: *Lock) void {
        if (l.tryLock()) return;
        while (l.word.swap(2, .acquire) != 0) _ = os.futexWait(&l.word, 2, null);
    }

    pub inline fn tryLock(l: *Lock) bool {
        return l.word.cmpxchgStrong(0, 1, .acquire, .monotonic) == null;
    }

    pub fn unlock(l: *Lock) void {
        if (l.word.swap(0, .release) == 2) os.futexWake(&l.word, 1);
    }
};
