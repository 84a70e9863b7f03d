// Package runtime is a bottle's life on a host: plan, claim, bring up,
// supervise, tear down and reap.
//
// Bring-up, in this order (Host.Up):
//
//  1. claim: a lock file, then the lease that takes the name. The lease's one
//     label holds every fact that removal needs.
//  2. the project, where there is one, is copied into a tree: a committed
//     snapshot under a lease of its own, with the index by which the next copy
//     finds what has changed. The bottle's snapshot over it is mounted below the
//     run directory, and then given to a second lease as well: the result's.
//  3. side by side: both network namespaces are wired, filtered and read back;
//     images are unpacked, snapshots prepared, containers and tasks created.
//  4. both tasks are started. Their first process is carboy-init, which waits.
//  5. the proxy engine gets what only its memory may hold, is started and asked
//     for its health from inside the egress namespace, while carboy-init in the
//     agent's container gets its files, the bottle's certificate authority first,
//     and drops its capabilities.
//  6. what is in force is read back, by the probes of package verify; with a
//     gate, ways out are tried, too. Only now the agent's command starts.
//
// While it lives its policy can be changed (Bottle.Steer): in the record first, then
// in the engine, which has to confirm it, and what is no longer allowed is ended.
//
// Tear-down (Host.reap) finds everything by the lease and deletes the lease
// last. A failed bring-up, the normal end, `rm` and `gc` all call it. What the
// agent wrote to its workspace stays under the result's lease, until `rm` or,
// after a week, `gc`.
package runtime
