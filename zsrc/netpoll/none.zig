//! Where no poller exists yet: the lane can wait and be woken, sockets cannot be registered.
const std = @import("std");
const os = @import("../os/os.zig");
const netpoll = @import("netpoll.zig");
const Handle = os.Handle;

pub const name = "none";

pub const Backend = struct {
    note: *os.Note,
    signals: Handle = .none,

    pub fn init() netpoll.InitError!Backend {
        const note = try std.heap.c_allocator.create(os.Note);
        note.* = .{};
        return .{ .note = note };
    }

    pub fn deinit(b: *Backend) void {
        std.heap.c_allocator.destroy(b.note);
    }

    pub fn watchSignals(_: *Backend, _: Handle) netpoll.AddError!void {
        return error.Unsupported;
    }

    pub fn verify(_: *const Backend) void {}

    pub fn add(_: *Backend, _: Handle, _: u64, _: netpoll.Directions) netpoll.AddError!void {
        return error.Unsupported;
    }

    pub fn rearm(_: *Backend, _: Handle, _: u64, _: netpoll.Directions) bool {
        return false;
    }

    pub fn remove(_: *Backend, _: Handle) void {}

    pub fn wait(b: *Backend, _: []netpoll.Ready, len: *usize, timeout_ns: ?u64) netpoll.WaitResult {
        len.* = 0;
        if (timeout_ns == 0) return .timeout;
        const how = b.note.sleep(timeout_ns);
        if (how == .woken) b.note.clear();
        return switch (how) {
            .woken => .events,
            .timeout => .timeout,
            .interrupted => .interrupted,
        };
    }

    pub fn wake(b: *Backend) void {
        b.note.wake();
    }

    pub fn pending(_: *Backend) bool {
        return false;
    }
};
