// Package authority makes the certificate authority of one bottle, with which
// its proxy opens the TLS of the hosts that are to be intercepted, and of no
// other host. It keeps nothing and writes nothing.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"carboy/runtime/proxy/policy"
)

// Authority is a certificate for the agent's trust stores, and the key for the
// memory of the proxy, both in PEM.
type Authority struct {
	Certificate []byte
	Key         []byte // as SEC 1, which is what pipelock reads
	Fingerprint string // SHA-256 of the certificate, in hexadecimal
}

// Lives of a certificate. It cannot be renewed, because programs read their
// trust store once: it has to last for as long as the bottle may. That gives
// nothing away, since the key is gone with the bottle.
const (
	shortest = 24 * time.Hour
	longest  = 90 * 24 * time.Hour // of a bottle without a limit
	slack    = time.Hour           // for bring-up, and clocks
)

// New makes an authority for the hosts of these patterns. Bound is how long the
// bottle may live, zero without a limit.
func New(bottle string, hosts []policy.Pattern, bound time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	template := template(bottle, life(bound))
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	constrain(template, hosts)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Authority{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}),
		Fingerprint: hex.EncodeToString(sum[:]),
	}, nil
}

func life(bound time.Duration) time.Duration {
	if bound <= 0 {
		return longest
	}
	return max(shortest, bound+slack)
}

func template(bottle string, life time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "carboy bottle " + bottle},
		NotBefore:             now.Add(-slack),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs no other authority
	}
}

// constrain permits the hosts and nothing else (RFC 5280, 4.2.1.10). A name
// that is permitted brings those below it: the RFC has no way to say less.
func constrain(c *x509.Certificate, hosts []policy.Pattern) {
	c.PermittedDNSDomainsCritical = true
	for _, h := range hosts {
		name := strings.TrimPrefix(h.Host(), "*.")
		if addr, err := netip.ParseAddr(name); err == nil {
			c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())})
			continue
		}
		c.PermittedDNSDomains = append(c.PermittedDNSDomains, name)
	}
	slices.Sort(c.PermittedDNSDomains)
	c.PermittedDNSDomains = slices.Compact(c.PermittedDNSDomains)
	// A kind of name that is not mentioned would be free.
	if len(c.PermittedDNSDomains) == 0 {
		c.ExcludedDNSDomains = []string{""}
	}
	if len(c.PermittedIPRanges) == 0 {
		c.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
}
