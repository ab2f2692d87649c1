//! The poller on Linux: epoll, edge-triggered.
//!
//! An eventfd wakes it, which is always readable and seldom watched: a wake-up has epoll watch it.
//! golibx writes to no descriptor, since its number may have become another file's, and epoll_ctl()
//! fails on any but the right pair. `add` refuses the number, so that no other file is watched
//! under it. A program may close golibx's own descriptors all the same, though Python code can't.
//! It ends with a line that says so, since nothing would wake its goroutines any more.
const std = @import("std");
const linux = std.os.linux;
const os = @import("../os/os.zig");
const netpoll = @import("netpoll.zig");
const Handle = os.Handle;
const AddError = netpoll.AddError;

pub const name = "epoll";

const wake_tag = std.math.maxInt(u64);

comptime {
    std.debug.assert(wake_tag > netpoll.signal_tag);
}

pub const Backend = struct {
    epfd: i32,
    wakefd: i32,
    signals: Handle = .none,
    /// One M waits while another, with the lane's lock, looks: each has its buffer.
    waited: [netpoll.batch]linux.epoll_event = undefined,
    looked: [netpoll.batch]linux.epoll_event = undefined,
    /// A wake-up is on its way: one is enough.
    woken: std.atomic.Value(bool) = .init(false),
    /// epoll_pwait2 (Linux 5.11) takes nanoseconds; without it waits are rounded up to 1 ms.
    precise: bool = true,

    pub fn init() netpoll.InitError!Backend {
        const ep = linux.epoll_create1(linux.EPOLL.CLOEXEC);
        if (linux.errno(ep) != .SUCCESS) return limit(linux.errno(ep));
        errdefer _ = linux.close(@intCast(ep));
        const ev = linux.eventfd(1, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
        if (linux.errno(ev) != .SUCCESS) return limit(linux.errno(ev));
        errdefer _ = linux.close(@intCast(ev));
        var b: Backend = .{ .epfd = @intCast(ep), .wakefd = @intCast(ev) };
        const added = b.control(linux.EPOLL.CTL_ADD, b.wakefd, 0, wake_tag);
        if (added != .SUCCESS) return limit(added);
        os.descriptors.keep(b.epfd);
        os.descriptors.keep(b.wakefd);
        return b;
    }

    fn limit(e: linux.E) netpoll.InitError {
        return if (e == .NOMEM) error.OutOfMemory else error.SystemLimit;
    }

    fn control(b: *const Backend, op: u32, fd: i32, events: u32, tag: u64) linux.E {
        var e: linux.epoll_event = .{ .events = events, .data = .{ .u64 = tag } };
        return linux.errno(linux.epoll_ctl(b.epfd, op, fd, &e));
    }

    fn lost(e: linux.E) noreturn {
        os.fatal("the poller's descriptors have been closed by the program ({t}): what closes " ++
            "descriptors that it has not opened has to leave golibx's own alone", .{e});
    }

    /// Whether the wake-up is watched. Any thread, no lock.
    fn watchWake(b: *const Backend, watched: bool) void {
        const events: u32 = if (watched) linux.EPOLL.IN else 0;
        switch (b.control(linux.EPOLL.CTL_MOD, b.wakefd, events, wake_tag)) {
            .SUCCESS => {},
            else => |e| lost(e),
        }
    }

    /// Ends the process if the descriptors are not the poller's any more.
    pub fn verify(b: *const Backend) void {
        const e = b.control(linux.EPOLL.CTL_ADD, b.wakefd, 0, wake_tag);
        if (e != .EXIST) lost(e);
    }

    /// Watches the read end of the program's signal wake-up pipe; the caller keeps it.
    pub fn watchSignals(b: *Backend, h: Handle) AddError!void {
        if (b.signals == h) return;
        try b.watch(h.fd(), linux.EPOLL.IN, netpoll.signal_tag);
        b.signals = h;
    }

    pub fn deinit(b: *Backend) void {
        os.descriptors.release(b.wakefd);
        os.descriptors.release(b.epfd);
        _ = linux.close(b.wakefd);
        _ = linux.close(b.epfd);
    }

    pub fn add(b: *Backend, h: Handle, tag: u64, of: netpoll.Directions) AddError!void {
        return b.watch(h.fd(), edges(of), tag);
    }

    pub fn rearm(b: *Backend, h: Handle, tag: u64, of: netpoll.Directions) bool {
        return b.control(linux.EPOLL.CTL_MOD, h.fd(), edges(of), tag) == .SUCCESS;
    }

    fn edges(of: netpoll.Directions) u32 {
        const read: u32 = linux.EPOLL.IN | linux.EPOLL.PRI | linux.EPOLL.RDHUP;
        const write: u32 = linux.EPOLL.OUT;
        return linux.EPOLL.ET | (if (of.read) read else 0) | (if (of.write) write else 0);
    }

    fn watch(b: *Backend, fd: i32, events: u32, tag: u64) AddError!void {
        if (fd == b.wakefd) lost(.BADF);
        switch (b.control(linux.EPOLL.CTL_ADD, fd, events, tag)) {
            .SUCCESS => {},
            .NOMEM => return error.OutOfMemory,
            .PERM => return error.NotPollable,
            .EXIST => return error.InUse,
            .NOSPC => return error.SystemLimit, // fs.epoll.max_user_watches
            .LOOP => return error.NotPollable,
            else => {
                b.verify();
                return error.BadDescriptor;
            },
        }
    }

    /// One that was closed before has gone from epoll by itself.
    pub fn remove(b: *Backend, h: Handle) void {
        _ = b.control(linux.EPOLL.CTL_DEL, h.fd(), 0, 0);
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
            else => |e| lost(e),
        }
        for (events[0..rc]) |e| {
            if (e.data.u64 == wake_tag) {
                if (timeout_ns == 0) continue; // it is for the M that waits
                b.watchWake(false);
                // A full barrier: a thread that still finds it true wakes no other, so the reads
                // after this have to see what that thread wrote before.
                _ = b.woken.swap(false, .seq_cst);
                continue;
            }
            const hangup = linux.EPOLL.HUP | linux.EPOLL.ERR;
            out[len.*] = .{
                .tag = e.data.u64,
                .read = e.events & (linux.EPOLL.IN | linux.EPOLL.RDHUP | hangup) != 0,
                .write = e.events & (linux.EPOLL.OUT | hangup) != 0,
                .hangup = e.events & hangup != 0,
                .eof = e.events & linux.EPOLL.RDHUP != 0,
                .urgent = e.events & linux.EPOLL.PRI != 0,
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
        if (b.woken.swap(true, .seq_cst)) return;
        b.watchWake(true);
    }

    /// Whether `wait` would find something now. Any thread, no lock.
    pub fn pending(b: *Backend) bool {
        var fds = [_]linux.pollfd{.{ .fd = b.epfd, .events = linux.POLL.IN, .revents = 0 }};
        return linux.poll(&fds, 1, 0) == 1;
    }
};
