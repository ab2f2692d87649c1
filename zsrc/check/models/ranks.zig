//! Priorities: zsrc/serial/ranks.zig and inbox.zig as they are, in a small lane that picks as
//! processor.zig does.
//!
//! Two goroutines of a high priority, one of none and one of a low one never stop. What each does
//! when it has had its turn is chosen: it is woken at once, gives way, or has used up its slice.
//! A thread posts wake-ups of one more of a high priority, and sysmon asks. No goroutine waits for
//! more turns than there is reason for.
const std = @import("std");
const check = @import("../explorer.zig");
const list = @import("../../core/list.zig");
const g_mod = @import("../../serial/g.zig");
const inbox_mod = @import("../../serial/inbox.zig");
const ranks = @import("../../serial/ranks.zig");
const Allocator = std.mem.Allocator;

/// Fewer than really, so that many come about.
const others_turns = 3;
const join_turns = 2 * others_turns;
/// What is in the run queue at most: all of them.
const most_queued = 5;
/// For the ones that go first, and for those that have the others' turns.
const longest_high = others_turns * 3;
const longest_queued = others_turns * (most_queued + 1);
const longest_low = join_turns + longest_queued;
const all_turns = 2 * longest_low;

pub fn Waits(comptime Sim: type) type {
    return struct {
        const Self = @This();
        pub const threads = .{ .{ "m", runs }, .{ "poster", posts }, .{ "sysmon", asks } };

        const Habit = enum { is_woken, gives_way, uses_slice };
        const G = struct {
            next: ?*G = null,
            rank: g_mod.Priority,
            priority: g_mod.Priority,
            system: bool = false,
            habit: Habit = .is_woken,
            queued: ?u32 = null,
            /// It goes before all others.
            first: bool = false,
        };
        const Queue = list.Fifo(G);

        var lane: Lane = .{};
        var inbox: inbox_mod.InboxOf(Sim) = .{};
        var gil: Sim.Lock = .{};
        var all: [4]G = undefined;
        var turns: u32 = 0;
        var post: Post = .{};

        const Post = struct {
            entry: inbox_mod.Entry = .{ .arrive = arrive },
            g: G = .{ .rank = .high, .priority = .high },
            ran: u32 = 0,
            done: Sim.Note = .{},

            fn arrive(e: *inbox_mod.Entry) void {
                const p: *Post = @alignCast(@fieldParentPtr("entry", e));
                lane.ready(&p.g);
            }
        };

        const Lane = struct {
            runq: Queue = .{},
            runnext: ?*G = null,
            preempted: Queue = .{},
            high: Queue = .{},
            low: Queue = .{},
            low_since: u64 = 0,
            spares_low: bool = false,
            turn: u32 = 0,
            attention: Sim.Atomic(bool) = .init(false),
            asked: Sim.Atomic(bool) = .init(false),
            options: struct { explore: bool = false } = .{},

            const in_ranks = ranks.Ranks(Lane, struct {
                pub const others = others_turns;
                pub const planted = if (@hasDecl(Sim, "planted")) Sim.planted else .none;
            });

            /// As lane.zig's.
            fn ready(self: *Lane, g: *G) void {
                g.queued = turns;
                g.first = g.rank == .high;
                if (g.rank != .normal) return in_ranks.queueRanked(self, g);
                if (self.runnext) |other| self.runq.push(other);
                self.runnext = g;
            }

            /// As processor.zig's.
            fn pickNext(self: *Lane) ?*G {
                if (self.attention.load(.monotonic)) {
                    self.attend();
                    if (self.high.len > 0) if (in_ranks.pickHigh(self)) |g| return g;
                }
                self.turn +%= 1;
                if (self.turn % join_turns == 0) in_ranks.letLowJoin(self);
                if (self.runnext) |g| {
                    self.runnext = null;
                    if (self.turn % others_turns != 0) return g;
                    self.runq.push(g);
                }
                return self.runq.pop() orelse in_ranks.pickLast(self);
            }

            fn attend(self: *Lane) void {
                inbox.attend(&self.attention, nothing);
                if (self.asked.swap(false, .acquire)) in_ranks.joinWhenDue(self, 1 + turns, 1);
                in_ranks.keepAttention(self);
            }
        };

        fn nothing() void {}

        fn runs(_: *Self) void {
            gil.lock();
            for (&all) |*g| {
                // One of no priority that uses its slice waits until no other does, or sysmon
                // sees it.
                g.habit = @fromBackingInt(@intCast(Sim.choose(if (g.rank == .normal) 2 else 3)));
                lane.ready(g);
            }
            while (turns < all_turns or post.ran < 2) {
                const g = lane.pickNext() orelse {
                    check.expect(false, "nobody is to run, though some never stop");
                    break;
                };
                expectPrompt(g);
                turns += 1;
                g.queued = null;
                if (g == &post.g) {
                    post.ran += 1;
                    post.done.wake();
                } else goOn(g);
                // What holds for those that run holds for those that have not yet.
                for (&all) |*each| expectPrompt(each);
                if (turns < all_turns) continue;
                // The poster may not have come to it.
                gil.unlock();
                Sim.spin();
                gil.lock();
            }
            gil.unlock();
        }

        fn goOn(g: *G) void {
            if (g.habit == .is_woken) return lane.ready(g);
            g.queued = turns;
            g.first = false;
            const queue = if (g.habit == .gives_way)
                Lane.in_ranks.queueOf(&lane, g)
            else
                Lane.in_ranks.queueOfPreempted(&lane, g);
            queue.push(g);
        }

        fn expectPrompt(g: *G) void {
            const waited = turns - (g.queued orelse return);
            const longest: u32 = switch (g.rank) {
                .high => if (g.first) longest_high else longest_queued,
                .normal => longest_queued,
                .low => longest_low,
            };
            check.expect(waited <= longest, "a goroutine waits for its turn too long");
        }

        fn posts(_: *Self) void {
            for (0..2) |_| {
                post.done.clear();
                inbox.post(&post.entry, &lane.attention, nothing);
                _ = post.done.sleep(null);
            }
        }

        fn asks(_: *Self) void {
            for (0..2) |_| {
                lane.asked.store(true, .monotonic);
                lane.attention.store(true, .release);
            }
        }

        pub fn init(_: *Self, _: Allocator) !void {
            lane = .{};
            inbox = .{};
            gil = .{};
            turns = 0;
            post = .{};
            for (&all, [_]g_mod.Priority{ .high, .high, .normal, .low }) |*g, rank|
                g.* = .{ .rank = rank, .priority = rank };
            check.nameFields(&lane, "lane");
            check.nameFields(&inbox, "inbox");
        }

        pub fn end(_: *Self) void {
            check.expect(post.ran == 2, "one that was posted has not run");
        }
    };
}
