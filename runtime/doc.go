// Package runtime is a bottle's life on a host: plan, claim, bring up,
// supervise, tear down and reap.
//
// Bring-up, in this order (Host.Up):
//
//  1. claim: a lock file, then the lease that takes the name. The lease's one
//     label holds every fact that removal needs.
//  2. side by side: both network namespaces are wired, filtered and read back;
//     images are unpacked, snapshots prepared, containers and tasks created.
//  3. both tasks are started. Their first process is carboy-init, which waits.
//  4. the proxy engine is started and asked for its health from inside the
//     egress namespace, while carboy-init in the agent's container gets its
//     files and drops its capabilities.
//  5. what was wired is verified. Only now the agent's command starts.
//
// Tear-down (Host.reap) finds everything by the lease and deletes the lease
// last. A failed bring-up, the normal end, `rm` and `gc` all call it.
package runtime
