//! The inbox of a serial lane: zsrc/serial/inbox.zig as it is, beside an M that has the P, and two
//! threads that post an entry each. One posts it again as soon as it has arrived.
//!
//! The M has a goroutine that runs for some turns, or none, and then waits in the poller; or it has
//! one that never stops. When all has arrived its run ends, and the poller is gone.
const std = @import("std");
const check = @import("../explorer.zig");
const inbox_mod = @import("../../serial/inbox.zig");
const Allocator = std.mem.Allocator;

const What = enum {
    /// It has no goroutine that could run, most of the time.
    idle,
    /// Its goroutine runs on and on.
    busy,
};

fn Run(comptime Sim: type, comptime what: What) type {
    return struct {
        const Self = @This();
        pub const threads = .{ .{ "m", runs }, .{ "a", postsA }, .{ "b", postsB } };
        const posts = .{ 2, 1 };
        const all_posts = posts[0] + posts[1];

        var inbox: inbox_mod.InboxOf(Sim) = .{};
        var attention: Sim.Atomic(bool) = .init(false);
        /// The host's.
        var gil: Sim.Lock = .{};
        var poller: Poller = .{};
        var posters: [2]Poster = .{ .{}, .{} };
        var arrivals: u32 = 0;

        pub fn init(_: *Self, _: Allocator) !void {
            inbox = .{};
            attention = .init(false);
            gil = .{};
            poller = .{};
            posters = .{ .{}, .{} };
            arrivals = 0;
            check.nameFields(&inbox, "inbox");
            check.nameFields(&poller, "poller");
        }

        pub fn end(_: *Self) void {
            check.expect(arrivals == all_posts, "an entry has not arrived");
            check.expect(inbox.head.peek() == null, "an entry is left");
        }

        /// As the one of the network: a break is kept for the next that waits.
        const Poller = struct {
            broken: Sim.Atomic(bool) = .init(false),
            note: Sim.Note = .{},
            gone: bool = false,

            fn wait(p: *Poller) void {
                while (!p.broken.swap(false, .acq_rel)) {
                    _ = p.note.sleep(null);
                    p.note.clear();
                }
            }
        };

        fn pollBreak() void {
            Sim.reads(&poller.gone);
            check.expect(!poller.gone, "the poller is broken that is gone");
            if (!poller.broken.swap(true, .acq_rel)) poller.note.wake();
        }

        const Poster = struct {
            entry: inbox_mod.Entry = .{ .arrive = arrive },
            arrived: Sim.Note = .{},

            fn arrive(e: *inbox_mod.Entry) void {
                const p: *Poster = @alignCast(@fieldParentPtr("entry", e));
                arrivals += 1;
                p.arrived.wake();
            }

            fn life(p: *Poster, times: usize) void {
                for (0..times) |_| {
                    p.arrived.clear();
                    inbox.post(&p.entry, &attention, pollBreak);
                    _ = p.arrived.sleep(null);
                }
            }
        };

        fn postsA(_: *Self) void {
            posters[0].life(posts[0]);
        }

        fn postsB(_: *Self) void {
            posters[1].life(posts[1]);
        }

        fn nothing() void {}

        /// As processor.zig's: a turn of a goroutine, at whose end it looks.
        fn turn() void {
            Sim.spin();
            if (attention.load(.monotonic)) inbox.attend(&attention, nothing);
        }

        fn runs(_: *Self) void {
            gil.lock();
            while (arrivals < all_posts) {
                if (what == .busy or Sim.choose(2) == 1) turn();
                if (what == .idle) waitForWork();
            }
            gil.unlock();
            Sim.writes(&poller.gone);
            poller.gone = true;
        }

        /// As processor.zig's findRunnable and waitForWork.
        fn waitForWork() void {
            if (!inbox.isEmpty()) return inbox.drain();
            if (arrivals == all_posts or inbox.fallAsleep()) return;
            gil.unlock();
            poller.wait();
            gil.lock();
            inbox.awake();
            if (!inbox.isEmpty()) inbox.drain();
        }
    };
}

pub fn Idle(comptime Sim: type) type {
    return Run(Sim, .idle);
}

pub fn Busy(comptime Sim: type) type {
    return Run(Sim, .busy);
}
