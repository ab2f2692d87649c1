//! The poller on Linux: epoll, edge-triggered, woken through an eventfd.
const std = @import("std");
const linux = std.os.linux;
const netpoll = @import("netpoll.zig");

pub const name = "epoll";

const wake_tag = std.math.maxInt(u64);

pub const Backend = struct {
    epfd: i32,
    wakefd: i32,
    signal_fd: i32 = -1,
    /// One M waits while another, with the lane's lock, looks: each has its buffer.
    waited: [netpoll.batch]linux.epoll_event = undefined,
    looked: [netpoll.batch]linux.epoll_event = undefined,
    /// A wake-up is on its way: one is enough.
    woken: std.atomic.Value(bool) = .init(false),
    /// epoll_pwait2 (Linux 5.11) takes nanoseconds; without it waits are rounded up to 1 ms.
    precise: bool = true,

    pub fn init() error{ OutOfMemory, SystemLimit }!Backend {
        const ep = linux.epoll_create1(linux.EPOLL.CLOEXEC);
        if (linux.errno(ep) != .SUCCESS) return error.SystemLimit;
        errdefer _ = linux.close(@intCast(ep));
        const ev = linux.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
        if (linux.errno(ev) != .SUCCESS) return error.SystemLimit;
        const b: Backend = .{ .epfd = @intCast(ep), .wakefd = @intCast(ev) };
        var e: linux.epoll_event = .{ .events = linux.EPOLL.IN, .data = .{ .u64 = wake_tag } };
        if (linux.errno(linux.epoll_ctl(b.epfd, linux.EPOLL.CTL_ADD, b.wakefd, &e)) != .SUCCESS) {
            _ = linux.close(b.wakefd);
            return error.SystemLimit;
        }
        return b;
    }

    /// Watches the read end of the program's signal wake-up pipe; the caller keeps it.
    pub fn watchSignals(b: *Backend, fd: i32) void {
        var e: linux.epoll_event = .{
            .events = linux.EPOLL.IN,
            .data = .{ .u64 = netpoll.signal_tag },
        };
        if (linux.errno(linux.epoll_ctl(b.epfd, linux.EPOLL.CTL_ADD, fd, &e)) == .SUCCESS) b.signal_fd = fd;
    }

    fn drainSignals(b: *Backend) void {
        var bytes: [64]u8 = undefined;
        while (linux.errno(linux.read(b.signal_fd, &bytes, bytes.len)) == .SUCCESS) {
            // A pipe that is empty says EAGAIN.
        }
    }

    pub fn deinit(b: *Backend) void {
        _ = linux.close(b.wakefd);
        _ = linux.close(b.epfd);
    }

    pub const AddError = error{ OutOfMemory, SystemLimit, NotPollable, BadDescriptor, InUse };

    pub fn add(b: *Backend, fd: i32, tag: u64) AddError!void {
        var e: linux.epoll_event = .{
            .events = linux.EPOLL.IN | linux.EPOLL.OUT | linux.EPOLL.RDHUP | linux.EPOLL.ET,
            .data = .{ .u64 = tag },
        };
        return switch (linux.errno(linux.epoll_ctl(b.epfd, linux.EPOLL.CTL_ADD, fd, &e))) {
            .SUCCESS => {},
            .NOMEM => error.OutOfMemory,
            .PERM => error.NotPollable,
            .BADF => error.BadDescriptor,
            .EXIST => error.InUse,
            else => error.SystemLimit,
        };
    }

    pub fn remove(b: *Backend, fd: i32) void {
        _ = linux.epoll_ctl(b.epfd, linux.EPOLL.CTL_DEL, fd, null);
    }

    pub fn wait(
        b: *Backend,
        out: []netpoll.Ready,
        len: *usize,
        timeout_ns: ?u64,
    ) netpoll.WaitResult {
        const events = if (timeout_ns == 0) &b.looked else &b.waited;
        len.* = 0;
        const rc = b.epollWait(events, timeout_ns);
        switch (linux.errno(rc)) {
            .SUCCESS => {},
            .INTR => return .interrupted,
            else => return .timeout,
        }
        for (events[0..rc]) |e| {
            if (e.data.u64 == wake_tag) {
                if (timeout_ns == 0) continue; // it is for the M that waits
                var count: u64 = undefined;
                _ = linux.read(b.wakefd, @ptrCast(&count), 8);
                b.woken.store(false, .release);
                continue;
            }
            if (e.data.u64 == netpoll.signal_tag) b.drainSignals();
            const hangup = linux.EPOLL.HUP | linux.EPOLL.ERR;
            out[len.*] = .{
                .tag = e.data.u64,
                .read = e.events & (linux.EPOLL.IN | linux.EPOLL.RDHUP | hangup) != 0,
                .write = e.events & (linux.EPOLL.OUT | hangup) != 0,
                .hangup = e.events & hangup != 0,
                .eof = e.events & linux.EPOLL.RDHUP != 0,
            };
            len.* += 1;
        }
        return if (rc == 0) .timeout else .events;
    }

    fn epollWait(b: *Backend, events: []linux.epoll_event, timeout_ns: ?u64) usize {
        const max: u32 = @intCast(events.len);
        const ns = timeout_ns orelse return linux.epoll_wait(b.epfd, events.ptr, max, -1);
        if (ns == 0) return linux.epoll_wait(b.epfd, events.ptr, max, 0);
        if (b.precise) {
            const ts: linux.timespec = .{
                .sec = @intCast(ns / std.time.ns_per_s),
                .nsec = @intCast(ns % std.time.ns_per_s),
            };
            const rc = linux.syscall6(
                .epoll_pwait2,
                @bitCast(@as(isize, b.epfd)),
                @intFromPtr(events.ptr),
                max,
                @intFromPtr(&ts),
                0,
                0,
            );
            if (linux.errno(rc) != .NOSYS) return rc;
            b.precise = false;
        }
        const ms = @min(ns / std.time.ns_per_ms + 1, std.math.maxInt(i32));
        return linux.epoll_wait(b.epfd, events.ptr, max, @intCast(ms));
    }

    /// Makes the M that waits return. Any thread, no lock.
    pub fn wake(b: *Backend) void {
        if (b.woken.swap(true, .acq_rel)) return;
        const one: u64 = 1;
        _ = linux.write(b.wakefd, @ptrCast(&one), 8);
    }

    /// Whether `wait` would find something now. Any thread, no lock.
    pub fn pending(b: *Backend) bool {
        var fds = [_]linux.pollfd{.{ .fd = b.epfd, .events = linux.POLL.IN, .revents = 0 }};
        return linux.poll(&fds, 1, 0) == 1;
    }
};
