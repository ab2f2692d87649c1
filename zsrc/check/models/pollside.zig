//! A descriptor between the goroutine that waits for it, the poller's edges, deadlines and close;
//! and its next life.
const std = @import("std");
const check = @import("../explorer.zig");
const threads_mod = @import("threads.zig");
const desc = @import("../../netpoll/desc.zig");
const netpoll = @import("../../netpoll/netpoll.zig");
const poller = @import("../../netpoll/poller.zig");
const pollside = @import("../../parallel/pollside.zig");
const Generation = desc.Generation;

/// What a backend tells.
fn told(read: bool, write: bool) netpoll.Ready {
    return .{ .tag = 0, .read = read, .write = write, .hangup = false, .eof = false };
}

fn Descriptor(comptime Sim: type) type {
    return struct {
        const Rt = threads_mod.Rt(Sim);
        const DescRt = pollside.Rt(struct {
            pub const Env = Sim;
            pub const Backend = void;
        });
        const Desc = desc.Desc(DescRt);

        fn wait(d: *Desc, side: *Desc.Side, until: ?u64) enum { ready, closed, timeout } {
            var b: Rt.Blocker = undefined;
            b.init(null, true);
            var waiter: Desc.Waiter = .{ .wait = b.who() };
            switch (d.begin(side, &waiter)) {
                .ready => return .ready,
                .closed => return .closed,
                .busy => check.fail("nobody else waits", .{}),
                .waiting => {},
            }
            switch (b.block(.io_read, until, unlock, d)) {
                .ready => return .ready,
                .closed => return .closed,
                .timeout, .interrupted => {
                    d.withdraw(side, &waiter);
                    return .timeout;
                },
            }
        }

        fn unlock(raw: *anyopaque) bool {
            const d: *Desc = @ptrCast(@alignCast(raw));
            d.lock.unlock();
            return true;
        }

        /// The poller's part.
        fn edge(d: *Desc, generation: Generation, read: bool, write: bool) void {
            var woken = d.edge(generation, told(read, write));
            while (woken.pop()) |w| Rt.wake(w.wait);
        }

        fn expectIdle(d: *const Desc) void {
            const idle = d.read.waiters.head == null and d.write.waiters.head == null;
            check.expect(idle and d.closer == null, "nobody is queued");
        }

        fn decref(d: *Desc) void {
            if (d.decref()) Rt.wake(d.takeCloser());
        }

        /// What netpoll.zig does until the file may be closed. False if it is closed already.
        fn close(d: *Desc, generation: Generation) bool {
            var woken = d.close(generation) orelse return false;
            while (woken.pop()) |w| Rt.wake(w.wait);
            var b: Rt.Blocker = undefined;
            b.init(null, false);
            if (d.drain(b.who()) == .waiting) _ = b.block(.io_close, null, unlock, d);
            return true;
        }
    };
}

/// Bytes arrive one by one, each with an edge; a reader takes what there is, and waits when there
/// is nothing, once with a deadline. A writer waits for the other direction.
pub fn Edges(comptime Sim: type) type {
    return struct {
        d: D.Desc = .{},
        bytes: Sim.Atomic(u32) = .init(0),
        room: Sim.Atomic(u32) = .init(0),

        const Self = @This();
        const D = Descriptor(Sim);
        const total = 2;
        pub const threads = .{ .{ "reader", read }, .{ "writer", write }, .{ "poller", poll } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            _ = m.d.open(.of(3));
        }

        fn read(m: *Self) void {
            var taken: u32 = 0;
            var deadline: ?u64 = 5;
            while (true) {
                taken += m.bytes.swap(0, .acq_rel);
                if (taken == total) return;
                const how = D.wait(&m.d, &m.d.read, deadline);
                check.expect(how != .closed, "nobody closes it");
                deadline = null;
            }
        }

        fn write(m: *Self) void {
            while (m.room.load(.acquire) == 0) _ = D.wait(&m.d, &m.d.write, null);
        }

        fn poll(m: *Self) void {
            _ = m.bytes.fetchAdd(1, .acq_rel);
            D.edge(&m.d, 0, true, false);
            _ = m.bytes.fetchAdd(1, .acq_rel);
            m.room.store(1, .release);
            D.edge(&m.d, 0, true, true);
        }

        pub fn end(m: *Self) void {
            D.expectIdle(&m.d);
        }
    };
}

/// One waits, with or without a deadline, another closes and opens anew, and the poller delivers an
/// edge that it has fetched before.
fn Closing(comptime Sim: type, comptime deadline: ?u64) type {
    return struct {
        d: D.Desc = .{},

        const Self = @This();
        const D = Descriptor(Sim);
        pub const threads = .{ .{ "waits", waits }, .{ "closes", closes }, .{ "poller", poll } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            _ = m.d.open(.of(3));
        }

        fn waits(m: *Self) void {
            if (!m.d.incref(0)) return;
            defer D.decref(&m.d);
            const how = D.wait(&m.d, &m.d.read, deadline);
            check.expect(how != .timeout or deadline != null, "there is no deadline");
        }

        fn closes(m: *Self) void {
            check.expect(D.close(&m.d, 0), "nobody else closes it");
            _ = m.d.recycle();
            const generation = m.d.open(.of(4));
            var b: D.Rt.Blocker = undefined;
            b.init(null, true);
            check.expect(m.d.incref(generation), "it is open");
            Sim.yieldPoint();
            var waiter: D.Desc.Waiter = .{ .wait = b.who() };
            const how = m.d.begin(&m.d.write, &waiter);
            check.expect(how != .ready, "an edge of the old file says that the new one is ready");
            check.expect(how == .waiting, "nobody else waits");
            m.d.lock.unlock();
            m.d.withdraw(&m.d.write, &waiter);
            D.decref(&m.d);
            check.expect(D.close(&m.d, generation), "it is open");
        }

        fn poll(m: *Self) void {
            D.edge(&m.d, 0, true, true);
        }

        pub fn end(m: *Self) void {
            D.expectIdle(&m.d);
        }
    };
}

pub fn Close(comptime Sim: type) type {
    return Closing(Sim, null);
}

pub fn CloseUntil(comptime Sim: type) type {
    return Closing(Sim, 5);
}

/// Calls on a handle, some of which wait, while two try to close it. Who does opens another file,
/// which gets the number and the descriptor. The table of files says which file a number is.
fn Reusing(comptime Sim: type, comptime readers: u32) type {
    return struct {
        d: D.Desc = .{},
        /// Of number 3, the only one: 0 is none.
        file: Sim.Atomic(u32) = .init(0),
        closes: Sim.Atomic(u32) = .init(0),
        handle: [files]Generation = undefined,

        const Self = @This();
        const D = Descriptor(Sim);
        const files = 2;
        const one = .{
            .{ "reads", reads },
            .{ "closes", closeAndOpen },
            .{ "closes too", closeOnly },
        };
        const two = .{ .{ "reads", reads }, .{ "closes", closeAndOpen }, .{ "writes", writes } };
        pub const threads = if (readers == 1) one else two;

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.open(0);
        }

        fn open(m: *Self, i: u32) void {
            m.file.store(i + 1, .release);
            m.handle[i] = m.d.open(.of(3));
        }

        /// A call on the first file's handle. False once it is closed.
        fn call(m: *Self, side: *D.Desc.Side) bool {
            if (!m.d.incref(m.handle[0])) return false;
            defer D.decref(&m.d);
            while (true) {
                Sim.reads(&m.d.fd);
                check.expect(m.d.fd.fd() == 3, "a call finds no file");
                // The attempt: the kernel looks at the number, and has nothing.
                check.expect(m.file.load(.acquire) == 1, "a call touches a stranger's file");
                switch (D.wait(&m.d, side, null)) {
                    .closed => return false,
                    .ready => {},
                    .timeout => check.fail("there is no deadline", .{}),
                }
            }
        }

        fn reads(m: *Self) void {
            while (m.call(&m.d.read)) {}
            // For ever.
            check.expect(!m.call(&m.d.read), "a handle that was closed is so no more");
        }

        fn writes(m: *Self) void {
            while (m.call(&m.d.write)) {}
        }

        fn close(m: *Self, i: u32) bool {
            if (!D.close(&m.d, m.handle[i])) return false;
            check.expect(m.file.load(.acquire) == i + 1, "a stranger's file is closed");
            m.file.store(0, .release);
            check.expect(m.d.recycle(), "this is not the last generation");
            return true;
        }

        fn closeAndOpen(m: *Self) void {
            if (!m.close(0)) return;
            _ = m.closes.fetchAdd(1, .acq_rel);
            m.open(1);
            check.expect(m.d.incref(m.handle[1]), "a new handle is open");
            check.expect(m.file.load(.acquire) == 2, "a call touches a stranger's file");
            D.decref(&m.d);
            check.expect(m.close(1), "a new handle is open");
        }

        fn closeOnly(m: *Self) void {
            if (m.close(0)) _ = m.closes.fetchAdd(1, .acq_rel);
        }

        pub fn end(m: *Self) void {
            check.expect(m.closes.raw == 1, "one of those who close it does");
            check.expect(m.file.raw == 0, "the file is closed");
            D.expectIdle(&m.d);
        }
    };
}

pub fn Reuse(comptime Sim: type) type {
    return Reusing(Sim, 1);
}

pub fn ReuseTwo(comptime Sim: type) type {
    return Reusing(Sim, 2);
}

/// Several take from one direction, as in a lane whose goroutines settle what they leave over:
/// each takes the mark, tries for one of the things that arrive, and waits when it is refused.
fn Sharing(comptime Sim: type, comptime closes: bool) type {
    return struct {
        d: Desc = .{},
        /// What the kernel has, and has had.
        things: Sim.Atomic(u32) = .init(0),
        taken: Sim.Atomic(u32) = .init(0),

        const Self = @This();
        const Threads = threads_mod.Rt(Sim);
        const total = 2;
        const Desc = desc.Desc(struct {
            pub const Env = Sim;
            pub const Lock = Sim.Lock;
            pub const Wait = Threads.Wait;
            pub const Owner = void;
            pub const settles = true;
            pub const starts_ready = true;

            pub fn claim(w: *Desc.Waiter, how: desc.How) bool {
                return w.wait.claim(if (how == .ready) .ready else .closed);
            }
        });
        const asks = .{ .{ "takes", takes }, .{ "takes too", takes }, .{ "kernel", arrives } };
        const ends = .{ .{ "takes", takes }, .{ "takes too", takes }, .{ "closes", close } };
        pub const threads = if (closes) ends else asks;

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            _ = m.d.open(.of(3));
        }

        fn wake(woken: Desc.Woken) void {
            var left = woken;
            while (left.pop()) |w| Threads.wake(w.wait);
        }

        /// The system call. One at a time.
        fn try_(m: *Self) bool {
            while (true) {
                const n = m.things.load(.acquire);
                if (n == 0) return false;
                if (m.things.cmpxchgStrong(n, n - 1, .acq_rel, .monotonic) == null) return true;
            }
        }

        fn takes(m: *Self) void {
            var marked = false;
            while (true) {
                if (marked or m.d.take(&m.d.read)) {
                    if (m.try_()) {
                        _ = m.taken.fetchAdd(1, .acq_rel);
                        return wake(m.d.settle(&m.d.read, true));
                    }
                    m.d.refused(&m.d.read);
                }
                var b: Threads.Blocker = undefined;
                b.init(null, false);
                var w: Desc.Waiter = .{ .wait = b.who() };
                marked = switch (m.d.begin(&m.d.read, &w)) {
                    .ready => true,
                    .closed => return,
                    .busy => unreachable,
                    .waiting => switch (b.block(.io_read, null, unlock, &m.d)) {
                        .ready => true,
                        else => return,
                    },
                };
            }
        }

        fn unlock(raw: *anyopaque) bool {
            const d: *Desc = @ptrCast(@alignCast(raw));
            d.lock.unlock();
            return true;
        }

        /// Two at once come with one edge, or one by one.
        fn arrives(m: *Self) void {
            const at_once = Sim.choose(2) == 1;
            for (0..if (at_once) 1 else total) |_| {
                _ = m.things.fetchAdd(if (at_once) total else 1, .acq_rel);
                wake(m.d.edge(0, told(true, false)));
            }
        }

        fn close(m: *Self) void {
            wake(m.d.close(0) orelse return check.fail("nobody else closes it", .{}));
        }

        pub fn end(m: *Self) void {
            check.expect(m.d.read.waiters.head == null, "nobody is queued");
            check.expect(closes or m.taken.raw == total, "all is taken");
        }
    };
}

pub fn Share(comptime Sim: type) type {
    return Sharing(Sim, false);
}

pub fn ShareClose(comptime Sim: type) type {
    return Sharing(Sim, true);
}

/// Two open files of one poller, call on them and close them, one of them twice, so that a block is
/// made and descriptors are used again. Somebody else calls on a handle that it was never given.
pub fn Handles(comptime Sim: type) type {
    return struct {
        p: P = .{},

        const Self = @This();
        const D = Descriptor(Sim);
        const P = poller.Sized(D.DescRt, 1, 2);
        pub const threads = .{ .{ "opens", twice }, .{ "opens too", once }, .{ "guesses", guess } };

        fn twice(m: *Self) void {
            m.use(3);
            m.use(4);
        }

        fn once(m: *Self) void {
            m.use(5);
        }

        fn use(m: *Self, fd: i32) void {
            const tag = m.p.make(Sim.gpa(), .of(fd)) catch check.fail("two are enough", .{});
            const generation = P.generationOf(tag);
            const d = m.p.descOf(tag).?;
            check.expect(d.incref(generation), "a new handle is open");
            Sim.reads(&d.fd);
            check.expect(d.fd.fd() == fd, "a call touches a stranger's file");
            D.decref(d);
            check.expect(D.close(d, generation), "a handle is closed once");
            m.p.release(d);
        }

        fn guess(m: *Self) void {
            const tag = 1 << 1 | 1;
            const d = m.p.descOf(tag) orelse return;
            if (!d.incref(P.generationOf(tag))) return;
            Sim.reads(&d.fd);
            check.expect(d.fd != .none, "a call finds no file");
            D.decref(d);
        }

        pub fn end(m: *Self) void {
            check.expect(!m.p.wanted(), "all are closed");
        }
    };
}
