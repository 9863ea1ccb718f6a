// SPDX-License-Identifier: Apache-2.0

package relay

// restorerFlag is SA_RESTORER: amd64 wants one.
const restorerFlag = 0x04000000
